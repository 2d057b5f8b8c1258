"""Training at the NRMSE that the estimator itself decides."""
from torch import Tensor

from mmfeatjnd.models.run import Visit
from mmfeatjnd.registry import MODELS
from .base_training import BaseTraining


@MODELS.register_module()
class LearnedNRMSE(BaseTraining):
    """The features are disturbed by the estimator's distortion as it is, and
    M rewards its NRMSE, too: the problem as the paper states it.

    Args:
        magnitude (str): M: 'l2' (the paper's example) or 'log' (mean log
            magnitude relative to the RMS of the channel). Defaults to 'log'.
    """

    def __init__(self, magnitude: str = 'log') -> None:
        super().__init__(magnitude)

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        estimator = visit.neck.estimator_of(level)
        jnd_map = estimator(feature)
        self.keep(visit, level, jnd_map, feature)
        return feature.float() + estimator.distortion(jnd_map, visit.keys,
                                                      visit.stream)
