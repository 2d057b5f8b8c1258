"""Noise that differs in *where* it is put, and in nothing else.

A token map says of every token how sensitive the task is to noise on it,
:math:`\\log w_t` (see :mod:`mmfeatjnd.functional.sensitivity`). As a
distortion it is Gaussian noise, white over the channels in units of their
standard deviation, of :math:`w_t^{-1/2}` in strength: no direction that the
next layer ignores can hide it. The learned map and its controls differ by
where they have log w from.
"""
from abc import abstractmethod
from typing import Optional, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    Level,
    log_sensitivity,
    over_channels,
    relative_energy,
    shuffle_channels,
    shuffle_tokens,
)
from mmfeatjnd.models.estimators.base_estimator import MODES
from mmfeatjnd.registry import DISTORTIONS
from .distortions import Distortion


class TokenMap(Distortion):
    """Noise on tokens by their sensitivity.

    The estimator says what the channels' deviations are, and what a map must
    be compared with.
    """

    needs_jnd = True
    modes: Tuple[str, ...] = ('sensitivity', )

    @abstractmethod
    def log_sensitivity(self, level: Level) -> Tensor:
        """log w of every token, nats: (B, 1, H, W), (B, N, 1) or (B, 1)."""

    def std(self, level: Level) -> Optional[Tensor]:
        estimator = level.estimator
        log_s = estimator.bounded(-0.5 * self.log_sensitivity(level))
        return over_channels(estimator.channels.std,
                             level.feature) * log_s.exp()

    def __call__(self, level: Level) -> Tensor:
        return self.std(level) * self.white(level)


@DISTORTIONS.register_module(name='featjnd')
class FeatJNDDistortion(TokenMap):
    """What the estimator allows: noise by the sensitivity that it predicts
    from the features alone; of the other modes its own distortion, the signed
    map or noise inside the envelope."""

    random = False  # but for the estimator's own noise
    modes = MODES

    def log_sensitivity(self, level: Level) -> Tensor:
        return level.estimator.log_sensitivity(level.feature)

    def std(self, level: Level) -> Optional[Tensor]:
        if level.estimator.mode == 'sensitivity':
            return super().std(level)
        return None

    def __call__(self, level: Level) -> Tensor:
        estimator = level.estimator
        if estimator.mode == 'sensitivity':
            return super().__call__(level)
        return estimator.distortion(
            estimator(level.feature), level.keys, level.stream)


@DISTORTIONS.register_module(name='permuted')
class PermutedMap(FeatJNDDistortion):
    """The FeatJND distortion with the tokens of each level of an image
    permuted: keeps the histogram and the direction in channel space, and loses
    where."""

    random = True

    def log_sensitivity(self, level: Level) -> Tensor:
        return shuffle_tokens(
            super().log_sensitivity(level), level.keys, level.stream)

    def __call__(self, level: Level) -> Tensor:
        if level.estimator.mode == 'sensitivity':
            return super().__call__(level)
        return shuffle_tokens(
            super().__call__(level), level.keys, level.stream)


class _OfFeatJND(Distortion):
    """A change that is made of the FeatJND distortion: no independent noise
    of its own."""

    needs_jnd = True

    def __init__(self) -> None:
        self.featjnd = FeatJNDDistortion()


@DISTORTIONS.register_module(name='sign-flipped')
class SignFlipped(_OfFeatJND):
    """The FeatJND distortion with the opposite sign."""

    random = False

    def __call__(self, level: Level) -> Tensor:
        return -self.featjnd(level)


@DISTORTIONS.register_module(name='channel-shuffled')
class ChannelShuffled(_OfFeatJND):
    """The FeatJND distortion with the channels of each image permuted: keeps
    where, and loses the direction in channel space."""

    def __call__(self, level: Level) -> Tensor:
        return shuffle_channels(
            self.featjnd(level), level.keys, level.stream)


@DISTORTIONS.register_module(name='fisher')
class FisherMap(TokenMap):
    """The task's Fisher information on this very image: needs the rest of the
    host, forward and backward, so it is a reference and no product."""

    needs_sensitivity = True

    def log_sensitivity(self, level: Level) -> Tensor:
        return log_sensitivity(level.sensitivity,
                               level.estimator.channels.std)


@DISTORTIONS.register_module(name='static')
class StaticMap(TokenMap):
    """The mean map of the training pictures: does the image matter?"""

    def log_sensitivity(self, level: Level) -> Tensor:
        return level.estimator.known.static(level.feature)


@DISTORTIONS.register_module(name='other-image')
class OtherImageMap(TokenMap):
    """What the estimator predicted of a training picture: does it matter
    *which* image?"""

    def log_sensitivity(self, level: Level) -> Tensor:
        return level.estimator.known.other(level.keys, level.feature)


@DISTORTIONS.register_module(name='level-gain')
class LevelGain(TokenMap):
    """One number a level: does *where* matter at all?"""

    def log_sensitivity(self, level: Level) -> Tensor:
        static = level.estimator.known.static(level.feature)
        return level.estimator.known.gain.expand_as(static)


@DISTORTIONS.register_module(name='feature-energy')
class FeatureEnergy(TokenMap):
    """Noise where the features are weak: does the task matter?"""

    def log_sensitivity(self, level: Level) -> Tensor:
        channels = level.estimator.channels
        return relative_energy(level.feature, channels.mean,
                               channels.std).log()


@DISTORTIONS.register_module(name='outside-boxes')
class OutsideBoxes(TokenMap):
    """White noise outside of the host's own detections and none inside: is it
    more than knowing the answer? Needs the whole host."""

    needs_detections = True

    def log_sensitivity(self, level: Level) -> Tensor:
        if level.detected is None:
            raise ValueError(
                'outside-boxes needs maps (B, C, H, W) and the detections of '
                f'a detector, but got {tuple(level.feature.shape)}')
        return torch.zeros_like(level.detected, dtype=torch.float32)

    def std(self, level: Level) -> Tensor:
        std = super().std(level)  # raises where nothing can be detected
        return std * ~level.detected
