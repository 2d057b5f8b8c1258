"""The distortions that are compared at equal strength.

Every function takes one level of features and returns an unscaled distortion
of the same shape; :func:`mmfeatjnd.functional.scale_to_nrmse` then sets the
strength. ``jnd`` is the FeatJND distortion (signed map, or noise inside the
envelope); the controls show which part of its structure matters.
"""
from typing import Callable, Dict, NamedTuple, Optional

import torch
from torch import Tensor

from .layout import from_tokens, to_tokens
from .noise import (
    ORDER_STREAM,
    gaussian_noise,
    random_permutation,
    shuffle_tokens,
    uniform_noise,
)


class Level(NamedTuple):
    """What a distortion may look at, for one level of features.

    Attributes:
        feature (Tensor): The clean feature, (B, C, H, W), (B, N, C), (B, C).
        keys (Tensor): (B,), int64, keys of the noise.
        stream (int): Stream of the noise, e.g. the index of the level.
        jnd (Tensor, optional): The FeatJND distortion, shape of ``feature``.
        sensitivity (Tensor, optional): Squared task gradient, same shape.
    """
    feature: Tensor
    keys: Tensor
    stream: int = 0
    jnd: Optional[Tensor] = None
    sensitivity: Optional[Tensor] = None


def featjnd(level: Level) -> Tensor:
    """The estimator's distortion itself."""
    return level.jnd


def gaussian(level: Level) -> Tensor:
    """White Gaussian noise, the paper's baseline."""
    return gaussian_noise(level.keys, level.feature.shape[1:], level.stream)


def uniform(level: Level) -> Tensor:
    """White uniform noise."""
    return uniform_noise(level.keys, level.feature.shape[1:], level.stream)


def permuted(level: Level) -> Tensor:
    """The FeatJND distortion with the tokens of each image permuted.

    Keeps the histogram and the direction in channel space, and loses where.
    """
    return shuffle_tokens(level.jnd, level.keys, level.stream)


def sign_flipped(level: Level) -> Tensor:
    """The FeatJND distortion with the opposite sign."""
    return -level.jnd


def channel_shuffled(level: Level) -> Tensor:
    """The FeatJND distortion with the channels of each image permuted.

    Keeps where, and loses the direction in channel space.
    """
    tokens = to_tokens(level.jnd)
    order = random_permutation(level.keys, tokens.size(2),
                               level.stream + ORDER_STREAM)
    return from_tokens(
        tokens.gather(2, order[:, None].expand_as(tokens)), level.jnd)


def shrinkage(level: Level) -> Tensor:
    """f -> (1 - a) f: is FeatJND more than a smaller feature?"""
    return -level.feature


def amplification(level: Level) -> Tensor:
    """f -> (1 + a) f: is FeatJND more than a larger feature?"""
    return level.feature.clone()


def gradient_sensitivity(level: Level) -> Tensor:
    """Gaussian noise, weaker where the task's gradient is large.

    The reverse water-filling rule sigma ~ w^(-1/2) on the squared gradient w.
    A single image's w is noisy, so it is replaced by its rank-one model (mean
    over channels times mean over tokens); the floor, 1 % of its mean, keeps
    elements without gradient from taking all the energy. Ours.
    """
    w = to_tokens(level.sensitivity.float())  # (B, T, C)
    mean = w.mean((1, 2), keepdim=True)
    # in units of the mean: products of squared gradients leave float32's
    # range. Without any gradient the noise is white.
    w = w / torch.where(mean > 0, mean, 1.0)
    smooth = w.mean(2, keepdim=True) * w.mean(1, keepdim=True)
    sigma = (smooth + 0.01).rsqrt()
    return from_tokens(sigma, level.feature) * gaussian(level)


DISTORTIONS: Dict[str, Callable[[Level], Tensor]] = {
    'featjnd': featjnd,
    'gaussian': gaussian,
    'uniform': uniform,
    'permuted': permuted,
    'sign-flipped': sign_flipped,
    'channel-shuffled': channel_shuffled,
    'shrinkage': shrinkage,
    'amplification': amplification,
    'gradient-sensitivity': gradient_sensitivity,
}
#: Distortions that need the estimator.
NEEDS_JND = ('featjnd', 'permuted', 'sign-flipped', 'channel-shuffled')
#: Distortions that need the task's gradient.
NEEDS_SENSITIVITY = ('gradient-sensitivity', )
#: Distortions with no random part when the estimator is signed.
DETERMINISTIC = ('featjnd', 'sign-flipped', 'shrinkage', 'amplification')
