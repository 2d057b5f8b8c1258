"""Where a JND map tolerates change."""
from typing import Dict

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeatjnd.functional import channel_dim
from mmfeatjnd.models import FeatJNDNeck


class ToleranceRecorder:
    """An operation that keeps the tolerance of every token and changes
    nothing.

    The tolerance of a token is the RMS over its channels of the JND map, in
    units of each channel's own RMS.
    """

    def __init__(self) -> None:
        self.levels: Dict[int, Tensor] = {}

    def __call__(self, feature: Tensor, level: int,
                 neck: FeatJNDNeck) -> Tensor:
        estimator = neck.estimator_of(level)
        rms = estimator.channel_rms(feature)
        relative = estimator(feature) / rms.clamp_min(1e-6)
        self.levels[level] = relative.square().mean(
            channel_dim(feature)).sqrt()
        return feature

    def heatmap(self, size) -> Tensor:
        """One map for an image: the mean over the levels, in [0, 1].

        Args:
            size (tuple[int, int]): Height and width to resize to.

        Returns:
            Tensor: (B, H, W); each level is first scaled to its own range.
        """
        maps = []
        for tolerance in self.levels.values():
            if tolerance.dim() != 3:
                raise ValueError('A heat map needs features (B, C, H, W)')
            low = tolerance.amin((1, 2), keepdim=True)
            high = tolerance.amax((1, 2), keepdim=True)
            scaled = (tolerance - low) / (high - low).clamp_min(1e-12)
            maps.append(F.interpolate(scaled[:, None], size, mode='bilinear'))
        return torch.stack(maps).mean(0)[:, 0]
