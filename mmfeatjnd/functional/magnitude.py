"""The amplitude functional M(delta) that FeatJND maximises.

M decides what a large distortion means. The paper's example is the L2 norm; an
L2 reward is also met by putting all energy into a few dead elements. The mean
log magnitude rewards every element (log sigma is what a bit costs). Both are
relative to the features, so that one weight serves any split.
"""
from typing import Sequence

import torch
from torch import Tensor

from .layout import per_image
from .nrmse import nrmse, rms


def l2_magnitude(delta: Tensor, feature: Tensor) -> Tensor:
    """Relative L2 norm ||delta||_2 / ||f||_2, mean over the images: the
    example of the FeatJND paper.

    Args:
        delta (Tensor): The distortion, (B, ...).
        feature (Tensor): The clean feature, same shape.

    Returns:
        Tensor: Scalar, >= 0. Images whose feature is 0 are left out: nothing
        to be relative to.

    Example:
        >>> feature = torch.tensor([[3.0, -4.0], [0.0, 1.0]])  # (B, C)
        >>> l2_magnitude(feature / 2, feature)
        tensor(0.5000)
    """
    alive = rms(feature) != 0  # a NaN counts as alive
    # before the division: where() would make an infinite gradient NaN
    ratio = nrmse(delta * per_image(alive, delta), feature)
    return ratio.sum() / alive.sum().clamp_min(1)


def log_magnitude(delta: Tensor,
                  channel_rms: Tensor,
                  floor: float = 1e-3) -> Tensor:
    """Mean of log(|delta| / RMS of the channel + floor). Ours.

    Args:
        delta (Tensor): The distortion, (B, C, H, W), (B, N, C) or (B, C).
        channel_rms (Tensor): RMS of each channel, broadcastable to ``delta``.
        floor (float): Bounds the reward of a vanishing element from below
            and its gradient from above. Defaults to 1e-3.

    Returns:
        Tensor: Scalar, nats, >= log(floor).

    Example:
        >>> delta = torch.tensor([[1.0, -2.0]])  # (B, C)
        >>> log_magnitude(delta, torch.tensor([[1.0, 2.0]]), floor=0.0)
        tensor(0.)
    """
    # zero in a channel that never fires: nothing to be relative to
    alive = channel_rms != 0  # a NaN counts as alive
    relative = delta.float().abs() / torch.where(alive, channel_rms, 1.0)
    log = (relative + floor).log() * alive
    return log.mean() / alive.expand_as(log).float().mean().clamp_min(1e-6)


def bits_per_element(bits: Sequence[Tensor],
                     features: Sequence[Tensor]) -> Tensor:
    """Bits of all images and levels over all their elements. Its negative is
    M for steps (ours).

    Args:
        bits (Sequence[Tensor]): (B,) of every level.
        features (Sequence[Tensor]): The features of every level.

    Returns:
        Tensor: Scalar, >= 0.

    Example:
        >>> features = [torch.zeros(2, 4, 5, 5), torch.zeros(2, 8)]
        >>> bits = [torch.tensor([50.0, 50.0]), torch.tensor([4.0, 4.0])]
        >>> bits_per_element(bits, features)
        tensor(0.5000)
    """
    return sum(b.sum() for b in bits) / sum(f.numel() for f in features)
