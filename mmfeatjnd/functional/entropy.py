r"""How many bits quantized features take.

The model that the bitstream codes with, too: within one channel of one image
the values have exponential tails. A level q is coded as a flag "not 0", a
sign, and |q| - 1, which is geometric:

.. math:: P(q \ne 0) = \pi\, e^{-(\Delta_t - \Delta_0) / 2b}, \quad
    P(|q| > m + 1 \mid |q| > m) = e^{-\Delta_t / b}

with three parameters a channel and image, sent with the features: the
probability pi at the channel's reference step Delta_0, the scale b, and the
share of positive signs. It needs no training data, adapts to every image, and
works for steps that vary within the channel. The values of a vector (B, C)
share one model: one value cannot pay for three parameters. b lies on the grid
of the steps (:func:`mmfeatjnd.functional.half_octaves`), so Delta / b takes
few values and the probabilities come from small tables of 16-bit numbers:
encoder and decoder agree on every machine. Ours.
"""
from typing import NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from .layout import to_tokens
from .quantize import Steps

#: Bits of |q| - 1; its binary digits are independent (a property of the
#: geometric distribution), so each is coded with its own probability.
DIGITS = 15
#: Ratios Delta / b = 2^(n / 2), n clamped to this range.
RATIO_RANGE = (-32, 12)
PI_LEVELS = 33  # 0: the channel is all zero; i: pi = sin^2((i - 0.5) pi / 64)
SIGN_LEVELS = 17  # share of positive signs i / 16
_LOG2E = 1.4426950408889634


def _probability(x: np.ndarray) -> Tensor:
    """Multiples of 2^-16 within (0, 1)."""
    x = np.clip(np.round(x * 65536), 1, 65535) / 65536
    return torch.tensor(x, dtype=torch.float32)


def _tables():
    n = np.arange(RATIO_RANGE[0], RATIO_RANGE[1] + 1)
    ratio = 2.0**(n / 2)  # (R,)
    pi = np.sin((np.arange(PI_LEVELS) - 0.5) * np.pi / 64)**2  # (P,)
    change = (ratio[:, None] - ratio[None]) / 2  # (R, R reference)
    with np.errstate(over='ignore'):
        nonzero = pi[:, None, None] * np.exp(-change)  # (P, R, R)
    # the digit 2^d is 1 with probability r / (1 + r), r = rho^(2^d)
    weight = 2.0**np.arange(DIGITS)
    digit = 1 / (1 + np.exp(np.minimum(ratio[:, None] * weight, 700)))
    return (_probability(nonzero), _probability(digit),
            _probability(np.arange(SIGN_LEVELS) / (SIGN_LEVELS - 1)))


#: (PI_LEVELS, R, R), (R, DIGITS), (SIGN_LEVELS,): probabilities of a 1.
NONZERO, DIGIT, POSITIVE = _tables()


class Tails(NamedTuple):
    """The parameters of the model, integers, (B, C) each, (B, 1) for vectors.

    Attributes:
        nonzero (Tensor): Index of pi, 0 where the channel is all zero.
        scale (Tensor): Half octaves: b = base * 2^(scale / 2).
        positive (Tensor): Index of the share of positive signs.
    """
    nonzero: Tensor
    scale: Tensor
    positive: Tensor


def as_samples(x: Tensor) -> Tensor:
    """Samples by models: (B, T, C), and (B, C, 1) for a vector (B, C)."""
    return x[..., None] if x.dim() == 2 else to_tokens(x)


def token_exponents(level: Tensor, steps: Steps) -> Tensor:
    """The exponents of the steps, broadcastable to :func:`as_samples`."""
    exponent = steps.exponent
    if isinstance(exponent, int):
        return level.new_zeros(len(level), 1, 1, dtype=torch.int32)
    return as_samples(exponent).int()


def _moments(magnitude: Tensor, step: Tensor):
    """Of what fires in a model: which values do, (B, T, C), their number,
    mean step, and the share of the excess over the first level, (B, 1, C)
    each."""
    fires = (magnitude > 0).float()
    count = fires.sum(1, keepdim=True)
    some = count.clamp_min(1)
    mean_step = (fires * step).sum(1, keepdim=True) / some
    excess = ((magnitude - 1).clamp_min(0) * step).sum(1, keepdim=True) / some
    rho = excess / (excess + mean_step).clamp_min(1e-20)
    return fires, count, mean_step, rho


def fit_tails(level: Tensor, steps: Steps) -> Tails:
    """Fit the model to quantized features, by moments.

    Args:
        level (Tensor): What :func:`quantize` returned.
        steps (Steps): Its steps.

    Returns:
        Tails: The parameters; within their ranges for any input, so that
        what holds a NaN breaks no table.
    """
    # a NaN is no integer; code_length() says that there was one
    magnitude = as_samples(level).abs().nan_to_num(0)  # (B, T, C)
    exponent = token_exponents(level, steps)
    step = (exponent.float() / 2).exp2()  # relative to the base
    count, mean_step, rho = (
        x.squeeze(1) for x in _moments(magnitude, step)[1:])
    # where hardly any level exceeds 1 the moments say nothing about b, and a
    # tiny one would make every larger step that fires cost 16 bits
    b = mean_step / -rho.clamp(1 / 64, 1 - 1e-6).log()
    reference = _reference(steps, level)
    low, high = RATIO_RANGE
    scale = (2 * b.clamp_min(1e-20).log2()).round()
    scale = torch.minimum(torch.maximum(scale, reference - high),
                          reference - low).int()
    ratio = ((exponent - scale[:, None]).float() / 2).exp2()  # (B, T, C)
    ratio0 = ((reference - scale).float() / 2).exp2()
    share = (-(ratio - ratio0[:, None]) / 2).exp()
    pi = count / share.expand_as(magnitude).sum(1).clamp_min(1e-20)
    angle = pi.clamp(0, 1).sqrt().asin() / (torch.pi / 2)
    nonzero = (angle * (PI_LEVELS - 1) + 0.5).round().clamp(1, PI_LEVELS - 1)
    plus = (as_samples(level) > 0).float().sum(1) / count.clamp_min(1)
    positive = (plus * (SIGN_LEVELS - 1)).round()
    dead = count == 0
    return Tails(
        nonzero.masked_fill(dead, 0).int(),
        scale.masked_fill(dead, 0),
        positive.masked_fill(dead, SIGN_LEVELS - 1).int())


def _reference(steps: Steps, level: Tensor) -> Tensor:
    """Exponent of the channel's reference step: that of token exponent 0."""
    batch, _, channels = as_samples(level).shape
    if steps.channel is None or level.dim() == 2:
        return level.new_zeros(batch, channels, dtype=torch.int32)
    return to_tokens(steps.channel).int()[:, 0]


class Probabilities(NamedTuple):
    """What every symbol is coded with; see :func:`probabilities`."""
    nonzero: Tensor
    digit: Tensor
    positive: Tensor


def probabilities(tails: Tails, steps: Steps, like: Tensor) -> Probabilities:
    """The probabilities of the flag, of every digit, and of a plus sign.

    Args:
        tails (Tails): The parameters.
        steps (Steps): The steps.
        like (Tensor): The levels, or a tensor of their shape.

    Returns:
        Probabilities: ``nonzero`` (B, T, C), float32; ``digit`` (B, T, C),
        int64: the row of :data:`DIGIT`; ``positive`` (B, 1, C), float32. For
        a vector (B, C, 1) and (B, 1, 1).
    """
    low, high = RATIO_RANGE
    ratio = token_exponents(like, steps) - tails.scale[:, None]
    row = ratio.clamp_(low, high).sub_(low).long()
    reference = _reference(steps, like) - tails.scale
    column = reference.clamp(low, high).long() - low
    device = like.device
    # one small table a channel first: features are large
    table = NONZERO.to(device).transpose(1, 2)[tails.nonzero.long(), column]
    shape = as_samples(like).shape
    return Probabilities(
        table.transpose(1, 2).gather(1, row).expand(shape), row.expand(shape),
        POSITIVE.to(device)[tails.positive.long()][:, None])


def code_length(level: Tensor,
                steps: Steps,
                tails: Optional[Tails] = None) -> Tensor:
    """Bits that an ideal entropy coder takes with this model.

    Without side information: see :mod:`mmfeatjnd.coding` for real bytes.

    Args:
        level (Tensor): Integer values, (B, C, H, W), (B, N, C) or (B, C).
        steps (Steps): Their steps.
        tails (Tails, optional): The parameters. Defaults to None: fitted.

    Returns:
        Tensor: (B,), float32, bits of each image. NaN for an image with a
        NaN in its levels, or without a finite base step.
    """
    if tails is None:
        tails = fit_tails(level, steps)
    p = probabilities(tails, steps, level)
    tokens = as_samples(level)
    rest = (tokens.abs() - 1).clamp_min(0)
    fires = tokens != 0
    alive = (tails.nonzero > 0)[:, None]
    bits = -torch.where(fires, p.nonzero, 1 - p.nonzero).log2() * alive
    sign = -torch.where(tokens > 0, p.positive, 1 - p.positive).log2()
    low, high = RATIO_RANGE
    ratio = (torch.arange(low, high + 1, device=level.device) / 2).exp2()
    # the geometric distribution in closed form: what its digits add up to
    end = (-(-ratio).expm1()).log2()
    value = rest * (ratio * _LOG2E)[p.digit] - end[p.digit]
    bits = bits + fires * (sign + value)
    bits = bits.flatten(1).sum(1)
    return torch.where(steps.base.isfinite(), bits, torch.nan)


def empirical_entropy(level: Tensor) -> Tensor:
    """Zero-order entropy of the levels of each image: one histogram for all
    elements.

    Args:
        level (Tensor): Integer values, (B, ...).

    Returns:
        Tensor: (B,), float32, bits per element. NaN for an image with a NaN.
    """
    flat = level.flatten(1)
    if not flat.numel():
        return flat.new_zeros(len(flat), dtype=torch.float32)
    broken = flat.isnan().any(1)
    flat = flat.nan_to_num(0).long()
    flat = flat - flat.min()
    width = int(flat.max()) + 1
    image = torch.arange(len(flat), device=flat.device)[:, None]
    counts = torch.bincount((flat + image * width).flatten(),
                            minlength=len(flat) * width).view(-1, width)
    share = counts / flat.size(1)
    entropy = -torch.special.xlogy(share, share).sum(1) * _LOG2E
    return torch.where(broken, torch.nan, entropy)


def soft_code_length(magnitude: Tensor, feature: Tensor,
                     step: Tensor) -> Tensor:
    """:func:`code_length` with a gradient, for steps of any value.

    The model is fitted to the current levels without a gradient; the code
    length is then differentiated with respect to the levels, whose gradient
    is that of :func:`straight_through`, and to the steps.

    Args:
        magnitude (Tensor): |q| from ``straight_through(feature.abs(), ...)``,
            (B, C, H, W), (B, N, C) or (B, C).
        feature (Tensor): What was quantized, the same shape.
        step (Tensor): The steps, broadcastable.

    Returns:
        Tensor: (B,), float32, bits of each image. NaN for an image with a
        NaN or an infinite value.
    """
    finite = feature.isfinite().flatten(1).all(1)
    step = as_samples(step.expand(feature.shape))
    magnitude, feature = as_samples(magnitude), as_samples(feature)
    with torch.no_grad():
        fires, count, mean_step, rho = _moments(magnitude, step)
        mean_step = torch.where(count > 0, mean_step,
                                step.mean(1, keepdim=True))
        b = mean_step / -rho.clamp(1 / 64, 1 - 1 / 64).log()
        share = (-step / (2 * b)).exp().sum(1, keepdim=True)
        pi = count / share.clamp_min(1e-20)
        plus = (fires * (feature > 0)).sum(
            1, keepdim=True) / count.clamp_min(1)
        sign = -(torch.special.xlogy(plus, plus) + torch.special.xlogy(
            1 - plus, 1 - plus)) * _LOG2E
        first = feature.abs() < step  # the threshold nearby is the first
    nonzero = (pi * (-step / (2 * b)).exp()).clamp(1 / 512, 1 - 1 / 512)
    flag = torch.where(first, magnitude, 1.0)
    tail = torch.where(first, 0.0, magnitude - 1)
    end = (-(-step / b).expm1()).clamp_min(1e-6).log2()
    bits = (-(1 - flag) * (1 - nonzero).log2() + flag *
            (sign - nonzero.log2() - end) + tail * step / b * _LOG2E)
    return torch.where(finite, bits.flatten(1).sum(1), torch.nan)
