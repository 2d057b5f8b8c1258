"""A level of features: what distortions and step policies may look at."""
from typing import Any, NamedTuple, Optional

from torch import Tensor


class Level(NamedTuple):
    """One pyramid level of the features of some images.

    Attributes:
        feature (Tensor): The clean feature, (B, C, H, W), (B, N, C), (B, C).
        keys (Tensor): (B,), int64, keys of the noise.
        stream (int): Stream of the noise, e.g. the index of the level.
            Defaults to 0.
        envelope (Tensor, optional): FeatJND's bound of the noise, >= 0, the
            same shape.
        sensitivity (Tensor, optional): Diagonal of the task's Fisher
            information on this very image, the same shape.
        unit (Tensor, optional): Standard deviation of each channel,
            broadcastable to the feature, where white noise is to have this
            unit. None: that of the feature.
        estimator (Any, optional): The estimator, with what it has counted.
        detected (Tensor, optional): (B, 1, H, W), bool: tokens inside the
            host's own detections.
        uncertainty (Tensor, optional): (B,), how little sure the host is of
            these images, see :func:`mmfeatjnd.functional.uncertainty`.
        metric (Any, optional): The metric of the level, as far as the
            distortion asks for one: ``basis`` (C, r) of what is seen, and
            ``root`` (C, C), see :func:`mmfeatjnd.functional.inverse_root`.

    Example:
        >>> import torch
        >>> level = Level(torch.zeros(2, 8, 4, 4), keys=torch.arange(2))
        >>> level.stream, level.envelope is None
        (0, True)
    """
    feature: Tensor
    keys: Tensor
    stream: int = 0
    envelope: Optional[Tensor] = None
    sensitivity: Optional[Tensor] = None
    unit: Optional[Tensor] = None
    estimator: Any = None
    detected: Optional[Tensor] = None
    uncertainty: Optional[Tensor] = None
    metric: Any = None
