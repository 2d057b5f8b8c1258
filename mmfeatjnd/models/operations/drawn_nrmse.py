"""Training at strengths that are drawn, the way they will be tested."""
from typing import Sequence

from torch import Tensor

from mmfeatjnd.functional import scale_to_nrmse, uniform_noise
from mmfeatjnd.models.run import Visit
from mmfeatjnd.registry import MODELS
from .base_training import BaseTraining

_NRMSE_STREAM = 1 << 21


@MODELS.register_module()
class DrawnNRMSE(BaseTraining):
    """Every image's distortion is scaled to an NRMSE that is drawn uniformly.

    So M, the mean log magnitude relative to the RMS of the channel, only
    rewards how evenly the distortion is spread. Ours.

    Args:
        nrmse (Sequence[float]): (low, high), 0 < low <= high. Defaults to
            (0.25, 1.5).
    """

    free = False

    def __init__(self, nrmse: Sequence[float] = (0.25, 1.5)) -> None:
        # the L2 norm is constant at a given NRMSE
        super().__init__('log')
        if len(nrmse) != 2 or not 0 < nrmse[0] <= nrmse[1]:
            raise ValueError('DrawnNRMSE: nrmse must be (low, high) with '
                             f'0 < low <= high, but got {nrmse}')
        self.nrmse = tuple(nrmse)

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        estimator = visit.neck.estimator_of(level)
        jnd_map = estimator(feature)
        low, high = self.nrmse
        unit = uniform_noise(visit.keys, (1, ), _NRMSE_STREAM)[:, 0]
        delta = scale_to_nrmse(
            estimator.distortion(jnd_map, visit.keys, visit.stream), feature,
            low + (high - low) * (unit / 2 + 0.5))
        self.keep(visit, level, scale_to_nrmse(jnd_map, feature, 1.0),
                  feature)
        return feature.float() + delta
