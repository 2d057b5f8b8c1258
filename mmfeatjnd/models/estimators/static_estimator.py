"""The estimator that does not look at the image: a control."""
from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeatjnd.registry import MODELS
from .base_estimator import BaseEstimator


@MODELS.register_module()
class StaticEstimator(BaseEstimator):
    """One learned tensor for all images: what a signed map must beat.

    Trained as the others are. Whatever it reaches is a direction in channel
    space, or a place, that no image needs, and nothing of the image.

    Args:
        in_channels (int): Channels C of the feature.
        size (Sequence[int]): Height and width of the tensor, which is resized
            to the feature's; of token sequences their product counts.
            Defaults to (16, 16).
        **kwargs: See :class:`BaseEstimator`.
    """

    def __init__(self,
                 in_channels: int,
                 size: Sequence[int] = (16, 16),
                 **kwargs) -> None:
        super().__init__(in_channels, **kwargs)
        self.tensor = nn.Parameter(
            0.01 * torch.randn(1, self.out_channels, *size))

    def body(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            out = F.interpolate(
                self.tensor, x.shape[2:], mode='bilinear',
                align_corners=False)
        elif x.dim() == 3:
            out = F.interpolate(
                self.tensor.flatten(2), x.size(1), mode='linear',
                align_corners=False).transpose(1, 2)
        else:
            out = self.tensor.mean((2, 3))
        return out.expand(len(x), *out.shape[1:])
