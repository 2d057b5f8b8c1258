"""Noise on a part of the features: what a threshold is measured with."""
from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    from_tokens,
    gaussian_noise,
    over_channels,
    to_tokens,
)
from mmfeatjnd.models.run import Visit


class Part(NamedTuple):
    """A part of the features of an image.

    Attributes:
        level (int, optional): Its level. None: all.
        token (int, optional): Index of its token in row-major order. None:
            all.
        channels (tuple[int, int], optional): Its first channel, and the first
            behind. None: all.
    """
    level: Optional[int] = None
    token: Optional[int] = None
    channels: Optional[Tuple[int, int]] = None


class Probe:
    """White noise in units of the channels' standard deviation, on one part
    of each image of a batch. An operation for
    :meth:`mmfeatjnd.models.FeatJNDNeck.run`.

    Args:
        parts (Sequence[Part]): One for each image.
        scale (Tensor): (B,), the strength of each.

    Example:
        >>> import torch
        >>> probe = Probe([Part(level=0, token=5), Part()], torch.ones(2))
        >>> probe.token
        tensor([ 5, -1])
    """

    def __init__(self, parts: Sequence[Part], scale: Tensor) -> None:

        def column(values) -> Tensor:
            return torch.tensor(
                [-1 if v is None else v for v in values], device=scale.device)

        self.scale = scale
        self.level = column(p.level for p in parts)
        self.token = column(p.token for p in parts)
        ends = [p.channels or (None, None) for p in parts]
        self.first, self.last = (column(e) for e in zip(*ends))

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        """The changed level, float32."""
        i = visit.images
        std = visit.neck.estimator_of(level).channels.std
        noise = gaussian_noise(visit.keys, feature.shape[1:], visit.stream)
        noise = to_tokens(noise * over_channels(std, feature))  # (R, T, C)
        token, channel = (
            torch.arange(n, device=noise.device) for n in noise.shape[1:])
        here = (self.level[i] < 0) | (self.level[i] == level)
        tokens = (self.token[i, None] < 0) | (self.token[i, None] == token)
        channels = (self.first[i, None] < 0) | (
            (self.first[i, None] <= channel) & (channel < self.last[i, None]))
        part = tokens[:, :, None] & channels[:, None]
        noise = noise * part * (self.scale[i] * here)[:, None, None]
        return feature.float() + from_tokens(noise, feature)
