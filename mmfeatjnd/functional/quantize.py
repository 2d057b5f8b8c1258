"""Uniform quantization with steps that vary over tokens and channels.

A step is ``base * 2^(exponent / 2)``: one base an image, and integer
exponents (half octaves) for its tokens, channels or elements. Steps on such a
grid cost few bits to send, and both sides compute the same floats from them.
"""
from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor

from .layout import channel_dim, mean_over_tokens, per_image
from .noise import uniform_noise

GRANULARITIES = ('tensor', 'token', 'channel', 'channel-token', 'element')
#: Levels are clamped to +- this: they fit 16 bits. One that lies there is
#: saturated: how far beyond it would be is lost.
MAX_LEVEL = (1 << 15) - 1
#: Exponents are clamped to +- this: a factor of 2^32 either way.
MAX_EXPONENT = 64


class Steps(NamedTuple):
    """The quantization steps of one level of features.

    Attributes:
        base (Tensor): (B,), float32, > 0, in the unit of the feature.
        token (Tensor, optional): Half octaves, integer values, (B, 1, H, W),
            (B, N, 1) or (B, 1). None: 0.
        channel (Tensor, optional): The same, (B, C, 1, 1), (B, 1, C), (B, C).
        element (Tensor, optional): The same, the shape of the feature.
        offset (Tensor, optional): (B,), float32: the value of level 0. None:
            0.
    """
    base: Tensor
    token: Optional[Tensor] = None
    channel: Optional[Tensor] = None
    element: Optional[Tensor] = None
    offset: Optional[Tensor] = None

    @property
    def exponent(self) -> Union[Tensor, int]:
        """The sum of the exponents, broadcastable to the feature."""
        parts = [self.token, self.channel, self.element]
        return sum((p for p in parts if p is not None), start=0)

    def size(self, like: Tensor) -> Tensor:
        """The steps, float32, broadcastable to ``like``."""
        size = per_image(self.base, like)
        for part in (self.token, self.channel, self.element):
            if part is not None:  # one product over the whole feature
                size = size * half_octaves(part)
        return size

    def origin(self, like: Tensor) -> Union[Tensor, float]:
        """The value of level 0, broadcastable to ``like``."""
        return 0.0 if self.offset is None else per_image(self.offset, like)

    def scaled(self, factor: Union[float, Tensor]) -> 'Steps':
        """All steps times a factor, a number or (B,)."""
        return self._replace(base=self.base * factor)


def half_octaves(exponent: Tensor) -> Tensor:
    """2^(exponent / 2), float32, the same bits on every device.

    Args:
        exponent (Tensor): Integers. Floats take a gradient.
    """
    if exponent.requires_grad:
        return torch.exp2(exponent / 2)
    exponent = exponent.int()
    # 1 or sqrt(2), times a float made from its bits: the last bit of exp2
    # differs between devices
    odd = (exponent & 1).float()
    power = (((exponent >> 1) + 127) << 23).view(torch.float32)
    return (1 + odd * 0.41421354) * power


def make_steps(log_step: Tensor, granularity: str) -> Steps:
    r"""Steps on the grid from wished steps.

    The geometric mean over what the granularity joins, in half octaves; for
    'channel-token' the separable model (mean over channels plus mean over
    tokens):

    .. math:: \log\Delta_{ct} = \bar\ell + [\ell_t - \bar\ell] +
        [\ell_c - \bar\ell]

    where [.] rounds to the grid, unless a gradient is needed. Ours.

    Args:
        log_step (Tensor): Natural logarithm of the wished steps, (B, C, H,
            W), (B, N, C), (B, C), or with size 1 where it is constant.
        granularity (str): One of :data:`GRANULARITIES`.

    Returns:
        Steps: Exponents where the granularity has them.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f'granularity must be one of {GRANULARITIES}, '
                         f'but got {granularity!r}')
    log_step = log_step.float()
    mean = log_step.mean(list(range(1, log_step.dim())), keepdim=True)

    def grid(x: Tensor) -> Tensor:
        x = (x * (2 / 0.6931471805599453)).clamp(-MAX_EXPONENT, MAX_EXPONENT)
        # in training the grid would hide every small change from the task.
        # A NaN is no integer: it is in the base already
        return x if x.requires_grad else x.round().nan_to_num(0).int()

    token = per_channel = element = None
    if granularity in ('token', 'channel-token'):
        token = grid(
            log_step.mean(channel_dim(log_step), keepdim=True) - mean)
    if granularity in ('channel', 'channel-token'):
        per_channel = grid(mean_over_tokens(log_step) - mean)
    if granularity == 'element':
        element = grid(log_step - mean)
    return Steps(mean.exp().flatten(), token, per_channel, element)


@torch.no_grad()
def quantize(feature: Tensor,
             step: Tensor,
             rounding: Union[float, Tensor] = 0.5,
             deadzone: float = 0.5,
             offset: Union[float, Tensor] = 0.0) -> Tensor:
    r"""Uniform quantization, mid-tread.

    .. math:: q = \mathrm{sign}(x)\,\lfloor |x| / \Delta + \rho \rfloor, \quad
        x = f - o

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): Delta > 0, broadcastable.
        rounding (float | Tensor): rho in [0, 0.5]: 0.5 rounds to the nearest
            level, less rounds towards 0 and widens the zero bin to
            ``2 (1 - rho)`` steps. Defaults to 0.5.
        deadzone (float): At least this many steps on either side of 0 go to
            level 0, in [0.5, inf). Defaults to 0.5: no more than rounding
            asks for.
        offset (float | Tensor): o, the value of level 0. Defaults to 0.

    Returns:
        Tensor: Float32 with integer values in +-32767, the shape of
        ``feature``; see :func:`saturated`. NaN where feature or step is.
    """
    x = feature.float()
    if isinstance(offset, Tensor) or offset:
        x = x - offset
    # in place: on a CPU, fresh memory costs more than the arithmetic
    ratio = x.abs().div_(step)
    dropped = ratio < deadzone if deadzone > 0.5 else None
    level = ratio.add_(rounding).floor_()
    if dropped is not None:
        level.masked_fill_(dropped, 0.0)
    return level.clamp_(max=MAX_LEVEL).copysign_(x)


def saturated(level: Tensor) -> Tensor:
    """The share of levels that lie at the end of their range.

    What was clamped there has an error of any size, which grows as the steps
    become finer. At the finest scale of
    :func:`mmfeatjnd.functional.scale_limits` nothing is.

    Args:
        level (Tensor): What :func:`quantize` returned, (B, ...).

    Returns:
        Tensor: (B,), float32, in [0, 1]; NaN for an image with a NaN.

    Example:
        >>> level = quantize(torch.tensor([[1.0, 9e9]]), torch.tensor(0.5))
        >>> saturated(level)
        tensor([0.5000])
    """
    # 1 at the end, else 0; comparing would make a NaN 0
    return (level.abs() / MAX_LEVEL).floor().flatten(1).mean(1)


def dequantize(level: Tensor,
               step: Tensor,
               reconstruction: float = 0.0,
               offset: Union[float, Tensor] = 0.0) -> Tensor:
    r"""The values of levels: ``o + (q + beta sign(q)) Delta``.

    Args:
        level (Tensor): Integer values, (B, ...).
        step (Tensor): Delta, broadcastable.
        reconstruction (float): beta in (-0.5, 0.5), towards larger
            magnitudes. Defaults to 0: the middle of the bin.
        offset (float | Tensor): o. Defaults to 0.

    Returns:
        Tensor: Float32, the shape of ``level``.
    """
    level = level.float()
    if reconstruction:
        level = level + reconstruction * level.sign()
    value = level * step
    if isinstance(offset, Tensor) or offset:
        value = value + offset
    return value


def quantize_dequantize(feature: Tensor,
                        step: Tensor,
                        rounding: Union[float, Tensor] = 0.5,
                        deadzone: float = 0.5,
                        offset: Union[float, Tensor] = 0.0) -> Tensor:
    """:func:`dequantize` of :func:`quantize`; same arguments."""
    return dequantize(
        quantize(feature, step, rounding, deadzone, offset),
        step,
        offset=offset)


def saturate(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast, and clamp to what both dtypes hold: half a step above the largest
    half-precision number is no longer infinite."""
    limit = min(torch.finfo(dtype).max, torch.finfo(value.dtype).max)
    return value.clamp(-limit, limit).to(dtype)


def straight_through(feature: Tensor,
                     step: Tensor,
                     rounding: Union[float, Tensor] = 0.5,
                     sharpness: float = 10.0) -> Tensor:
    r"""Levels whose gradient is that of a soft staircase.

    Forward: :func:`quantize`. Backward: the gradient with respect to
    feature, step and rounding of

    .. math:: \lfloor y \rfloor + \sigma(\kappa (y - \lfloor y \rfloor - 1 +
        \rho)), \quad y = |f| / \Delta

    which, unlike the plain straight-through estimator (Bengio et al., arXiv
    1308.3432; Esser et al., arXiv 1902.08153, for the step), sees the
    threshold. Ours.

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): Delta > 0, broadcastable.
        rounding (float | Tensor): See :func:`quantize`. Defaults to 0.5.
        sharpness (float): kappa. Defaults to 10.

    Returns:
        Tensor: Float32 with integer values.
    """
    hard = quantize(feature, step, rounding)
    ratio = feature.float().abs() / step
    low = ratio.detach().floor()
    soft = low + (sharpness * (ratio - low - 1 + rounding)).sigmoid()
    soft = soft.copysign(feature.detach())
    return soft + (hard - soft).detach()


def additive_noise(feature: Tensor,
                   step: Tensor,
                   keys: Tensor,
                   stream: int = 0) -> Tensor:
    """Feature plus uniform noise of one step: the usual differentiable
    stand-in for quantization (Balle et al., arXiv 1611.01704).

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): Delta > 0, broadcastable.
        keys (Tensor): (B,), int64, keys of the noise.
        stream (int): Stream of the noise. Defaults to 0.

    Returns:
        Tensor: Float32, the shape of ``feature``.
    """
    noise = uniform_noise(keys, feature.shape[1:], stream)
    return feature.float() + noise * step / 2


def modelled_noise(steps: Steps, like: Tensor) -> Tensor:
    r"""Noise power of each image by the model mean(Delta^2) / 12.

    It holds where the step is small against the spread of what it quantizes.

    Args:
        steps (Steps): The steps.
        like (Tensor): The feature, (B, ...).

    Returns:
        Tensor: (B,), float32.
    """
    step = steps.size(like).expand(like.shape)
    return step.square().flatten(1).mean(1) / 12
