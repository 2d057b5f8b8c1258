"""How a quantizer chooses its steps, up to one scale.

A policy looks at one level of features and returns a function of the scale
(B,), so that a budget can be met without doing its work twice. Register your
own with ``@STEP_POLICIES.register_module(name=...)``.
"""
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    Allocation,
    Level,
    QuantizedLevel,
    Steps,
    block_log_means,
    clip_cover,
    clip_range,
    clip_steps,
    gradient_log_steps,
    jnd_log_steps,
    jnd_rounding,
    make_steps,
    mean_over_tokens,
    range_log_steps,
    scale_limits,
    shuffle_tokens,
    to_maps,
    uniform_log_steps,
    water_filling_steps,
)
from mmfeatjnd.functional.steps import check_granularity
from mmfeatjnd.functional.symbols import MAX_SYMBOL
from mmfeatjnd.models.codec_plan import (
    CodecPlan,
    LevelCode,
    check_plan_host,
    load_plan,
    step_for,
)
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.registry import STEP_POLICIES
from mmfeatjnd.utils import ConfigError
from .distortions import build_distortion
from .token_maps import TokenMap


class StepPolicy(ABC):
    """Choice of the steps of one level; the unit of the scale is the policy's.

    Attributes:
        needs_jnd (bool): ``level.envelope`` must be given.
        needs_sensitivity (bool): ``level.sensitivity`` must be given.
        needs_uncertainty (bool): ``level.uncertainty`` must be given.
        random (bool): Its result depends on the seed.
    """

    needs_jnd = False
    needs_sensitivity = False
    needs_uncertainty = False
    random = False

    @abstractmethod
    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        """A function from the scale of each image, (B,), to the allocation.

        Without a ``rounding`` of its own, that of the operation is taken.
        """

    @property
    def place(self) -> Tuple[Optional[str], Optional[Tuple[int, ...]]]:
        """tuple: Split and levels that the steps are of; None: of any."""
        return None, None

    def check(self, neck) -> None:
        """Raise unless the steps can be chosen for this neck and its host."""

    def scale_for(self, tolerance: float) -> float:
        """The scale at which an image costs so many nats.

        Raises:
            ValueError: The policy knows nothing of nats.
        """
        raise ValueError('tolerance: only the steps of a plan know what they '
                         "cost. Use policy=dict(type='plan', plan=FILE).")

    def code(self, level: int, device: torch.device) -> Optional[LevelCode]:
        """In which components a level is quantized.

        Args:
            level (int): Its index.
            device (torch.device): Where its features are.

        Returns:
            LevelCode, optional: None: the feature itself is.
        """
        return None

    def exponents(self, level: Level,
                  code: LevelCode) -> List[Optional[Tensor]]:
        """Half octaves of the blocks of every part of a level.

        Args:
            level (Level): With its own feature.
            code (LevelCode): What :meth:`code` returned.

        Returns:
            list[Tensor | None]: (B, 1, h, w), int32. None: steps do not vary.
        """
        return [None] * len(code.transforms)

    def stream(self, levels: Sequence[QuantizedLevel],
               size: Tuple[int, int]) -> bytes:
        """The bytes of one image.

        Args:
            levels (Sequence[QuantizedLevel]): What was quantized of it, for a
                batch of 1, on the CPU.
            size (tuple[int, int]): Its height and width, pixels.

        Returns:
            bytes: By default :func:`mmfeatjnd.coding.encode_image`, whose
            streams know nothing of the size.
        """
        from mmfeatjnd.coding import encode_image
        return b''.join(encode_image(levels[i:i + 255])
                        for i in range(0, len(levels), 255))

    def limits(self, feature: Tensor,
               at: Callable[[Tensor], Allocation]) -> Tuple[Tensor, Tensor]:
        """The scales between which a budget is looked for: there, noise
        grows and the rate falls with the scale.

        Override it where the steps are no multiple of the scale.

        Args:
            feature (Tensor): The feature, (B, ...).
            at (Callable): What :meth:`__call__` returned for it.

        Returns:
            tuple[Tensor]: The finest and the coarsest scale of each image,
            (B,): at the one the largest value has the largest symbol, see
            :func:`mmfeatjnd.functional.scale_limits`, at the other every
            symbol is 0.
        """
        return scale_limits(feature, at(_ones(feature)).steps)


def _ones(feature: Tensor) -> Tensor:
    return feature.new_ones(len(feature), dtype=torch.float32)


@STEP_POLICIES.register_module(name='featjnd')
class FeatJNDPolicy(StepPolicy):
    """Steps by the JND, sent with the features; see
    :func:`mmfeatjnd.functional.jnd_log_steps`.

    Args:
        granularity (str): 'token', 'channel', 'channel-token' or 'element'.
            Defaults to 'token'.
        jnd_rounding (bool): Round every element to the cheapest symbol within
            its own JND, see :func:`mmfeatjnd.functional.jnd_rounding`.
            Defaults to False.
        power (float): Power of the JND, in units of the channels' deviation,
            that the steps are proportional to. 1: twice the JND at scale 1.
            Defaults to 0.5, which needs the fewest bits on the host of
            ``make demo``.
    """

    needs_jnd = True
    #: Modes of the estimators that give a bound of noise.
    modes = ('sensitivity', 'envelope')

    def __init__(self,
                 granularity: str = 'token',
                 jnd_rounding: bool = False,
                 power: float = 0.5) -> None:
        check_granularity(granularity)
        if not 0 <= power < float('inf'):
            raise ValueError('power must be at least 0 and finite, but got '
                             f'{power}')
        self.granularity = granularity
        self.jnd_rounding = jnd_rounding
        self.power = power

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        unit = 1.0
        if level.estimator is not None:
            unit = level.estimator.channel_unit(level.feature)
        log_step = jnd_log_steps(level.envelope, unit, self.power)
        steps = make_steps(log_step, self.granularity)
        rounding = None
        if self.jnd_rounding:
            rounding = jnd_rounding(log_step, steps)
        return lambda scale: Allocation(steps.scaled(scale), rounding)


@STEP_POLICIES.register_module(name='permuted-steps')
class PermutedPolicy(FeatJNDPolicy):
    """FeatJND's steps, and their rounding, permuted over the tokens of the
    same image: the paper's random baseline. What the granularity gives to
    channels stays.

    Args:
        **kwargs: See :class:`FeatJNDPolicy`.
    """

    random = True

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        envelope = shuffle_tokens(level.envelope, level.keys, level.stream)
        return super().__call__(level._replace(envelope=envelope))


@STEP_POLICIES.register_module(name='token-map')
class TokenMapPolicy(FeatJNDPolicy):
    """The steps of FeatJND with another map in the place of the learned one:
    its controls, and its reference.

    Args:
        map (str): A token map in ``DISTORTIONS``: 'static', 'other-image',
            'level-gain', 'feature-energy' or 'fisher'; or 'white': one step
            in units of each channel's standard deviation.
        **kwargs: See :class:`FeatJNDPolicy`.
    """

    def __init__(self, map: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.modes = ('sensitivity', )
        self.map = None if map == 'white' else build_distortion(map)
        if self.map is not None and not isinstance(self.map, TokenMap):
            raise ValueError(f'token-map: {map!r} is no token map')
        if getattr(self.map, 'needs_detections', False):
            raise ValueError(f'token-map: {map!r} says where no noise may '
                             'be, and gives no steps')
        self.needs_sensitivity = getattr(self.map, 'needs_sensitivity', False)

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        feature, estimator = level.feature, level.estimator
        if self.map is None:
            log_w = torch.zeros_like(estimator.known.static(feature))
        else:
            log_w = self.map.log_sensitivity(level)
        return super().__call__(
            level._replace(envelope=estimator.envelope_of(log_w, feature)))


@STEP_POLICIES.register_module(name='one-step')
class UniformPolicy(StepPolicy):
    """One step for an image and level: the RMS of its feature (scale 1)."""

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        steps = make_steps(uniform_log_steps(level.feature), 'tensor')
        return lambda scale: Allocation(steps.scaled(scale))


@STEP_POLICIES.register_module(name='range')
class RangePolicy(StepPolicy):
    """A step for every token: its largest magnitude (scale 1), as dynamic
    per-token quantization does; 8 bits are scale 1 / 127."""

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        steps = make_steps(range_log_steps(level.feature), 'token')
        return lambda scale: Allocation(steps.scaled(scale))


@STEP_POLICIES.register_module(name='gradient')
class GradientPolicy(StepPolicy):
    """Steps from the task's gradient on this very image; the geometric mean
    is the RMS of the feature (scale 1). A strong reference rather than a
    codec: the encoder needs the whole host, forward and backward.

    Args:
        granularity (str): Defaults to 'channel-token'.
    """

    needs_sensitivity = True

    def __init__(self, granularity: str = 'channel-token') -> None:
        check_granularity(granularity)
        self.granularity = granularity

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        log_step = gradient_log_steps(level.sensitivity, level.feature)
        steps = make_steps(log_step, self.granularity)
        return lambda scale: Allocation(steps.scaled(scale))


@STEP_POLICIES.register_module(name='water-filling')
class WaterFillingPolicy(StepPolicy):
    """Reverse water-filling over the channels of the image: least squared
    error at its rate. The step of what is kept is the RMS (scale 1)."""

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        steps = make_steps(uniform_log_steps(level.feature), 'tensor')
        return lambda scale: Allocation(
            water_filling_steps(steps.scaled(scale), level.feature))

    def limits(self, feature: Tensor,
               at: Callable[[Tensor], Allocation]) -> Tuple[Tensor, Tensor]:
        """As if nothing was dropped: at finer scales it returns."""
        steps = at(_ones(feature)).steps
        return scale_limits(feature, steps._replace(channel=None))


@STEP_POLICIES.register_module(name='clip-uniform')
class ClipUniformPolicy(StepPolicy):
    """Clipping and a few uniform bins, after Cohen, Choi and Bajic
    (arXiv 2105.07102). Scale 1 is the range of least squared error.

    A range is never wider than the features'; see
    :func:`mmfeatjnd.functional.clip_cover`.

    Args:
        bins (int): Number of bins, 2 to 32767. Defaults to 4.
    """

    def __init__(self, bins: int = 4) -> None:
        if not 2 <= bins <= MAX_SYMBOL:
            raise ValueError('bins must be at least 2 and at most '
                             f'{MAX_SYMBOL}, but got {bins}')
        self.bins = bins

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        bounds = clip_range(level.feature, self.bins)
        cover = clip_cover(level.feature, bounds)

        def at(scale: Tensor) -> Allocation:
            scaled = bounds * torch.minimum(scale, cover)[:, None]
            return Allocation(clip_steps(scaled, self.bins), bounds=scaled)

        return at

    def limits(self, feature: Tensor,
               at: Callable[[Tensor], Allocation]) -> Tuple[Tensor, Tensor]:
        """From the range of least squared error to all of the features'. A
        narrower one costs more error, however many bits it takes."""
        one = _ones(feature)
        return one, clip_cover(feature, at(one).bounds)


#: Steps of a plan lie on a grid of so many to the octave: an image sends one
#: small number. Four times an odd number: no step lies half-way between two
#: quarter octaves, where rounding could differ from machine to machine.
STEPS_PER_OCTAVE = 28


def step_index(step: float) -> int:
    """The place of a step on the grid of :data:`STEPS_PER_OCTAVE`."""
    return round(STEPS_PER_OCTAVE * math.log2(step))


@STEP_POLICIES.register_module(name='plan')
class PlanPolicy(StepPolicy):
    r"""Steps for the components of a plan; the scale is the step, in the unit
    of the components, on a grid of 28 to the octave.

    They may be adapted to the picture, in half octaves that are sent:

    .. math:: \Delta_t \propto u^{-a}\, w_t^{-b}

    with the mean sensitivity :math:`w_t` of a block against the image's, by
    the learned map, and how little sure the host is of the image, u (see
    :func:`mmfeatjnd.functional.uncertainty`), for which the sender runs the
    whole host.

    Args:
        plan (str | Path | CodecPlan): A file of ``tools/make_plan.py``, or
            its content.
        block_power (float, optional): b. Defaults to None: the plan's.
        image_power (float, optional): a. Defaults to None: the plan's.
        permuted (bool): Permute the half octaves over the blocks of an image:
            the control. Defaults to False.
    """

    modes = ('sensitivity', )

    def __init__(self,
                 plan: Union[str, Path, CodecPlan],
                 block_power: Optional[float] = None,
                 image_power: Optional[float] = None,
                 permuted: bool = False) -> None:
        self.path = plan if not isinstance(plan, CodecPlan) else 'the plan'
        self.plan = plan if isinstance(plan, CodecPlan) else load_plan(plan)
        if block_power is None:
            block_power = self.plan.block_power
        if image_power is None:
            image_power = self.plan.image_power
        if not 0 <= block_power <= 1 or not 0 <= image_power <= 1:
            raise ValueError('block_power and image_power must lie in [0, 1], '
                             f'but got {block_power} and {image_power}')
        self.block_power = block_power
        self.image_power = image_power
        self.permuted = self.random = permuted
        self.needs_jnd = block_power > 0
        self.needs_uncertainty = image_power > 0
        self.digest = self.plan.digest
        self._codes: Dict[tuple, LevelCode] = {}

    @property
    def place(self) -> Tuple[Optional[str], Optional[Tuple[int, ...]]]:
        return self.plan.split, self.plan.configured

    def check(self, neck) -> None:
        if neck.split != self.plan.split:
            raise CheckpointError(
                f"{self.path} is of split='{self.plan.split}', but the host "
                f"is split at '{neck.split}'. Make another plan there.")
        check_plan_host(self.plan, neck.host, self.path)

    def scale_for(self, tolerance: float) -> float:
        return step_for(self.plan, tolerance)

    def code(self, level: int, device: torch.device) -> LevelCode:
        if level not in self.plan.parts:
            raise ConfigError(
                f'{self.path} is of levels {sorted(self.plan.parts)} of '
                f"split='{self.plan.split}', but level {level} is to be "
                'coded, too. Make one with it.')
        key = level, str(device)
        if key not in self._codes:
            self._codes[key] = LevelCode(self.plan.parts[level], device)
        return self._codes[key]

    def exponents(self, level: Level, code: LevelCode) -> List[Tensor]:
        if not self.block_power:
            return [None] * len(code.transforms)
        log_w = level.estimator.log_sensitivity(level.feature)
        found = []
        for x, transform in zip(to_maps(log_w), code.transforms):
            block = block_log_means(x, transform.block)
            half = (block - mean_over_tokens(block)) * (
                -2 * self.block_power / math.log(2))
            half = half.clamp(-_MOST, _MOST).round().int()
            if self.permuted:
                half = shuffle_tokens(half, level.keys, level.stream)
            found.append(half)
        return found

    def __call__(self, level: Level) -> Callable[[Tensor], Allocation]:
        shift = 0.0
        if self.image_power:
            log_u = level.uncertainty.clamp_min(1e-12).log2()
            shift = (self.image_power * (self.plan.image_level - log_u)).clamp(
                -_MOST / 2, _MOST / 2)

        def at(scale: Tensor) -> Allocation:
            index = (STEPS_PER_OCTAVE * (scale.log2() + shift)).round()
            return Allocation(Steps((index / STEPS_PER_OCTAVE).exp2()))

        return at

    def stream(self, levels: Sequence[QuantizedLevel],
               size: Tuple[int, int]) -> bytes:
        from mmfeatjnd.coding.plan_stream import encode_planned
        step = step_index(float(levels[0].steps.base))
        return encode_planned(levels, size, step, self.digest)


#: Half octaves by which a block or an image may differ from the others.
_MOST = 8
