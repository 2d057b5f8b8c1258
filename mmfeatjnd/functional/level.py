"""A level of features: what distortions and step policies may look at."""
from typing import NamedTuple, Optional

from torch import Tensor


class Level(NamedTuple):
    """One pyramid level of the features of some images.

    Attributes:
        feature (Tensor): The clean feature, (B, C, H, W), (B, N, C), (B, C).
        keys (Tensor): (B,), int64, keys of the noise.
        stream (int): Stream of the noise, e.g. the index of the level.
            Defaults to 0.
        distortion (Tensor, optional): What FeatJND allows, the shape of
            ``feature``: the signed map, or noise inside the envelope.
        envelope (Tensor, optional): FeatJND's bound of the noise, >= 0, the
            same shape.
        sensitivity (Tensor, optional): Squared task gradient, the same
            shape.

    Example:
        >>> import torch
        >>> level = Level(torch.zeros(2, 8, 4, 4), keys=torch.arange(2))
        >>> level.stream, level.envelope is None
        (0, True)
    """
    feature: Tensor
    keys: Tensor
    stream: int = 0
    distortion: Optional[Tensor] = None
    envelope: Optional[Tensor] = None
    sensitivity: Optional[Tensor] = None
