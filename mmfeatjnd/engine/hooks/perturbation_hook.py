"""Test and validate a host with distorted features."""
from typing import Optional, Sequence, Union

from mmfeatjnd.models import Perturbation
from mmfeatjnd.registry import HOOKS
from .operation_hook import OperationHook


@HOOKS.register_module()
class PerturbationHook(OperationHook):
    """Distort the features at the split, at the same strength everywhere.

    In ``tools/test.py`` and in validation. The measured NRMSE and the
    participation ratio stand beside the task metrics, as ``jnd/nrmse`` and
    ``jnd/participation_ratio``: means over levels and images.

    Args:
        distortion (str | dict): 'featjnd', 'gaussian', or a control, see
            docs/featjnd.md, or what you have registered in ``DISTORTIONS``.
            Defaults to 'featjnd'.
        nrmse (float): Strength of each image. Defaults to 0.5.
        definition (str): Its unit, see :class:`Perturbation`: 'rms' (NRMSE
            of each level), 'std', 'range', 'visible' (of what the rest of
            the host sees) or 'channel' (RMS over all levels, in standard
            deviations of the channels). Defaults to 'rms'.
        valid (bool): Keep the features in the range of the split, see
            :class:`Perturbation`. Defaults to False.
        seed (int): Seed of the noise; an image's noise depends on it and on
            the image's identity only. Defaults to 0.
        estimator (str, optional): File of
            :func:`mmfeatjnd.apis.save_estimator`, whose estimators are used
            in place of the model's. Defaults to None: the model's.
        split (str, optional): The split point of a plain host, see
            :func:`mmfeatjnd.models.neck_at`. Defaults to None: the config's;
            'backbone' for a plain host.
        levels (Sequence[int], optional): The levels of a plain host. Defaults
            to None: all that the split emits.
        task_metric (str, optional): A file of ``tools/estimate_metric.py``,
            which 'visible', 'null-space' and 'closed-form' need. Defaults to
            None.
    """

    def __init__(self,
                 distortion: Union[str, dict] = 'featjnd',
                 nrmse: float = 0.5,
                 definition: str = 'rms',
                 seed: int = 0,
                 estimator: Optional[str] = None,
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None,
                 valid: bool = False,
                 task_metric: Optional[str] = None) -> None:
        super().__init__(
            Perturbation(
                distortion,
                nrmse=nrmse,
                definition=definition,
                valid=valid,
                seed=seed,
                task_metric=task_metric), estimator, split, levels)
