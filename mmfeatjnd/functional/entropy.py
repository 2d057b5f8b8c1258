r"""How many bits quantized features take.

The model that the bitstream codes with, too: within one channel of one image
the values have exponential tails. A symbol q is coded as a flag "not 0", a
sign, and |q| - 1, which is geometric:

.. math:: \frac{P(q \ne 0)}{P(q = 0)} = \frac{\pi}{1 - \pi}
    \frac{e^{\Delta_r / 2b} - 1}{e^{\Delta_t / 2b} - 1} \quad\text{or}\quad
    P(q \ne 0) = \pi\, e^{-(\Delta_t - \Delta_r) / 2b}, \quad
    P(|q| > m + 1 \mid |q| > m) = e^{-\Delta_t / b}

with three parameters a channel and image, sent with the features: the
probability pi at a reference step Delta_r, the scale b, and the share of
positive signs. Both forms are a Laplace distribution that is rounded to the
nearest symbol, with a constant: times the odds, or times the probability, as
of features with zeros that no step makes fire. Each level of an image takes
the one that is shorter; where steps do not vary they are the same. The
reference lies where the level fires: it is the step of the token exponent
that is the mean over all of its symbols that are not 0, so that pi is neither
0 nor 1 where steps vary by a factor of 1000. The model needs no training data
and adapts to every image. The values of a vector (B, C) share one model: one
value cannot pay for three parameters. b lies on the grid of the steps
(:func:`mmfeatjnd.functional.steps.half_octaves`), so Delta / b takes few
values and the probabilities come from small tables of 16-bit numbers: encoder
and decoder agree on every machine. Ours.
"""
import functools
import math
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .layout import to_tokens
from .quantized import EntropyModel, QuantizedLevel
from .steps import MAX_EXPONENT, Steps

#: Bits of |q| - 1; its binary digits are independent (a property of the
#: geometric distribution), so each is coded with its own probability.
DIGITS = 15
#: Ratios Delta / b = 2^(n / 2), n clamped to this range.
RATIO_RANGE = (-32, 12)
NUM_PI = 33  # 0: the channel is all zero; i: pi = sin^2((i - 0.5) pi / 64)
NUM_SIGN = 17  # share of positive signs i / 16
LOG2E = 1.4426950408889634


def _probability(x: np.ndarray) -> Tensor:
    """Multiples of 2^-16 within (0, 1)."""
    x = np.clip(np.round(x * 65536), 1, 65535) / 65536
    return torch.tensor(x, dtype=torch.float32)


def _tables():
    n = np.arange(RATIO_RANGE[0], RATIO_RANGE[1] + 1)
    ratio = 2.0**(n / 2)  # (R,)
    pi = np.sin((np.arange(NUM_PI) - 0.5) * np.pi / 64)**2  # (P,)
    # log(e^(ratio / 2) - 1), which may exceed the largest number otherwise
    fall = ratio / 2 + np.log(-np.expm1(-ratio / 2))
    odds = pi / (1 - pi)
    odds = odds[:, None, None] * np.exp(fall[None] - fall[:, None])
    change = np.minimum((ratio[None] - ratio[:, None]) / 2, 700)
    nonzero = np.stack([  # (2, P, R, R reference)
        odds / (1 + odds), pi[:, None, None] * np.exp(change)
    ])
    # the digit 2^d is 1 with probability r / (1 + r), r = rho^(2^d)
    weight = 2.0**np.arange(DIGITS)
    digit = 1 / (1 + np.exp(np.minimum(ratio[:, None] * weight, 700)))
    return (_probability(nonzero), _probability(digit),
            _probability(np.arange(NUM_SIGN) / (NUM_SIGN - 1)))


#: (2, NUM_PI, R, R), (R, DIGITS), (NUM_SIGN,): probabilities of a 1.
NONZERO, DIGIT, POSITIVE = _tables()


def as_samples(x: Tensor) -> Tensor:
    """Samples by models: (B, T, C), and (B, C, 1) for a vector (B, C)."""
    return x[..., None] if x.dim() == 2 else to_tokens(x)


def token_exponents(like: Tensor, steps: Steps) -> Tensor:
    """The exponents of the steps, broadcastable to :func:`as_samples`."""
    exponent = steps.exponent
    if isinstance(exponent, int):
        return like.new_zeros(len(like), 1, 1, dtype=torch.int32)
    return as_samples(exponent).int()


def _token_part(like: Tensor, steps: Steps) -> Tensor:
    """The exponents without those of channels, which only change the unit of
    a model: (B, T, 1) or, for exponents of elements and vectors, (B, T, C)."""
    if like.dim() != 2:
        steps = steps._replace(channel=None)
    return token_exponents(like, steps)


class Statistics(NamedTuple):
    """All that a fit needs of the symbols. See :func:`statistics`.

    Attributes:
        step (Tensor): The steps of K classes, (B, K, C) or (B, K, 1).
        total (Tensor): Number of the symbols of each, the same shape.
        fires (Tensor): Number of those that are not 0, (B, K, C).
        excess (Tensor): Sum of |q| - 1 over them, (B, K, C).
    """
    step: Tensor
    total: Tensor
    fires: Tensor
    excess: Tensor


#: Classes of tokens whose exponents are the same.
_CLASSES = 2 * MAX_EXPONENT + 1


def statistics(magnitude: Tensor, exponent: Tensor) -> Statistics:
    """Statistics by classes of the same step.

    Whole numbers are summed, so they are the same in every run and on every
    device, and no value is read from it.

    Args:
        magnitude (Tensor): |q|, (B, T, C), whole numbers.
        exponent (Tensor): Half octaves, (B, T, C) or with size 1 for either.
            Rounded to the class where there are classes.

    Returns:
        Statistics: In float32, with steps in units of that of exponent 0. One
        class where tokens share the step, and a class a token where there are
        fewer tokens than exponents.
    """
    fires = magnitude > 0
    excess = (magnitude - 1).clamp_min(0)
    batch, tokens, _ = magnitude.shape
    step = (exponent.float() / 2).exp2()
    if exponent.size(1) == 1:
        fires, excess = (x.sum(1, keepdim=True, dtype=torch.long).float()
                         for x in (fires, excess))
        return Statistics(step, torch.full_like(step, tokens), fires, excess)
    if tokens <= _CLASSES:
        return Statistics(step, torch.ones_like(step), fires.float(), excess)
    row = exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT).round().long()
    row = row + MAX_EXPONENT
    step = torch.arange(_CLASSES, device=row.device) - MAX_EXPONENT
    step = (step / 2).exp2()[None, :, None]

    def add(x: Tensor) -> Tensor:
        sums = x.new_zeros(batch, _CLASSES, x.size(2), dtype=torch.long)
        return sums.scatter_add_(1, row.expand_as(x), x.long()).float()

    return Statistics(step, add(torch.ones_like(row)), add(fires), add(excess))


class Fit(NamedTuple):
    """Parameters of any value, (B, 1, C). Where nothing fires they mean
    nothing. See :func:`fit_form`.

    Attributes:
        level (Tensor): The logarithm of the constant: times the odds of a
            Laplace distribution, or times its probability, <= 0.
        rate (Tensor): 1 / b.
        nats (Tensor): Code length without signs.
    """
    level: Tensor
    rate: Tensor
    nats: Tensor


def share_that_fires(level: Tensor, half: Tensor, plain: bool) -> Tensor:
    """P(q != 0) of the level of a :class:`Fit`.

    Args:
        level (Tensor): The level.
        half (Tensor): Delta / 2b > 0, broadcastable.
        plain (bool): The form: times the probability, not the odds.
    """
    return (level - half).exp() if plain else (
        level - _log_fall(half)).sigmoid()


def _log_fall(half: Tensor) -> Tensor:
    """log(e^half - 1)."""
    return half + (-(-half).expm1()).log()


#: Iterations of the fit, and of the one with a known rate.
_ITERATIONS = (6, 3)


def fit_form(found: Statistics,
             plain: bool,
             rate: Optional[Tensor] = None) -> Fit:
    r"""The most likely parameters of a form, by Fisher scoring.

    What fires at which step, and how large it is, both tell the scale b.

    Args:
        found (Statistics): The statistics.
        plain (bool): See :func:`share_that_fires`.
        rate (Tensor, optional): 1 / b, (B, 1, C), where it is known. Defaults
            to None: it is fitted, too.

    Returns:
        Fit: The parameters.
    """
    step, total, fires, excess = found
    known = rate is not None
    count = fires.sum(1, keepdim=True)
    some = count.clamp_min(1)
    mean = (fires * step).sum(1, keepdim=True) / some
    mean = mean.clamp_min(1e-20)
    # where hardly any symbol exceeds 1 nothing may be known about b, and a
    # tiny one would make every larger step that fires cost 16 bits
    low, high = 1e-6 / mean, math.log(64) / mean
    if not known:
        rho = (excess * step).sum(1, keepdim=True) / some
        rate = -(rho / (rho + mean)).clamp(1e-6, 1 - 1e-6).log() / mean
        rate = torch.minimum(torch.maximum(rate, low), high)
    share = (count / total.sum(1, keepdim=True)).clamp(1e-4, 1 - 1e-4)
    # right for one step, for others a start between what fires and the rest
    half = (rate * mean / 2).clamp(1e-6, 40)
    if plain:
        level = (share.log() + half).clamp_max(0)
    else:
        level = share.logit() + _log_fall(half)
    for _ in range(_ITERATIONS[known]):
        half = (rate * step / 2).clamp(1e-6, 40)  # Delta / 2b
        grown = half.expm1()
        p = share_that_fires(level, half, plain).clamp(1e-12, 1 - 1e-6)
        rest = fires - total * p
        weight = total * p * (1 - p)
        # derivatives of the logit of p by the level, and by log(rate)
        rise = 1 / (1 - p) if plain else torch.ones_like(p)
        fall = -half * (rise if plain else 1 + 1 / grown)
        information = (weight * rise.square()).sum(
            1, keepdim=True).clamp_min(1e-6)
        move = (rest * rise).sum(1, keepdim=True) / information
        free = (level + move < 0) if plain else torch.ones_like(level)
        if not known:
            # the level follows; and what exceeds the first symbol
            middle = (weight * rise * fall).sum(1, keepdim=True) / information
            middle = middle * free
            fall = fall - rise * middle
            ratio = 2 * half
            tail = grown * (grown + 2)  # e^(Delta / b) - 1
            gradient = rest * fall + ratio * (fires / tail - excess)
            curvature = weight * fall.square() + fires * (
                ratio * (grown + 1) / tail).square()
            turn = gradient.sum(1, keepdim=True) / curvature.sum(
                1, keepdim=True).clamp_min(1e-6)
            turn = turn.clamp(-1, 1)
            rate = torch.minimum(torch.maximum(rate * turn.exp(), low), high)
            move = move - middle * turn
        level = level + move.clamp(-4, 4)
        if plain:
            level = level.clamp_max(0)
    half = (rate * step / 2).clamp(1e-6, 40)
    p = share_that_fires(level, half, plain).clamp(1 / 65536, 1 - 1 / 65536)
    nats = 2 * half * excess - fires * (
        p.log() + (-(-2 * half).expm1()).log()) - (
            total - fires) * (1 - p).log()
    return Fit(level, rate, nats.sum(1, keepdim=True))


def shorter_form(fits: Sequence[Fit]) -> Tensor:
    """Index of the form that an image takes, (B, 1, 1), int64: the second one
    where it saves more than what says so."""
    first, second = (x.nats.sum(2, keepdim=True) for x in fits)
    return (second < first - 1).long()


def fit_entropy_model(quantized: QuantizedLevel) -> QuantizedLevel:
    """Quantized features with the model that is fitted to them.

    What has a model comes back as it is: :func:`code_length` counts and
    :func:`mmfeatjnd.coding.encode_image` codes with the model that was fitted
    first.

    Args:
        quantized (QuantizedLevel): What
            :func:`mmfeatjnd.functional.quantize` returned.

    Returns:
        QuantizedLevel: The same with ``model``; its parameters lie within
        their ranges for any symbols, so that what holds a NaN breaks no
        table.

    Example:
        >>> symbols = torch.tensor([[[0.0, 1.0], [0.0, -3.0]]])  # (B, N, C)
        >>> quantized = QuantizedLevel(symbols, Steps(torch.ones(1)))
        >>> quantized = fit_entropy_model(quantized)
        >>> quantized.model.nonzero  # the first channel is all zero
        tensor([[ 0, 32]], dtype=torch.int32)
        >>> fit_entropy_model(quantized) is quantized
        True
    """
    if quantized.model is not None:
        return quantized
    symbols, steps = quantized.symbols, quantized.steps
    return quantized._replace(model=_fit(symbols, steps))


def _fit(symbols: Tensor, steps: Steps) -> EntropyModel:
    # a NaN is no integer; code_length() says that there was one
    magnitude = as_samples(symbols).abs().nan_to_num(0, 0)  # (B, T, C)
    token = _token_part(symbols, steps)
    found = statistics(magnitude, token)
    reference = _mean_exponent(magnitude, token)
    # in units of the channel's own step, where a sum of exponents is 0
    low, high = (reference[:, None] - x for x in reversed(RATIO_RANGE))
    fits, scales = [], []
    for plain in (False, True):
        scale = (-2 * fit_form(found, plain).rate.log2()).round()
        scales.append(torch.minimum(torch.maximum(scale, low), high))
        rate = (-scales[-1] / 2).exp2()
        fits.append(fit_form(found, plain, rate))
    form = shorter_form(fits)
    half = (reference[:, None].float() / 2).exp2() / 2
    pi = torch.where(form > 0, *(
        share_that_fires(fits[i].level, half * fits[i].rate, bool(i))
        for i in (1, 0))).squeeze(1)
    scale = torch.where(form > 0, scales[1], scales[0])
    angle = pi.sqrt().asin() / (torch.pi / 2)
    nonzero = (angle * (NUM_PI - 1) + 0.5).round().clamp(1, NUM_PI - 1)
    count = found.fires.sum(1)
    plus = (as_samples(symbols) > 0).float().sum(1) / count.clamp_min(1)
    positive = (plus * (NUM_SIGN - 1)).round()
    dead = count == 0
    scale = scale.squeeze(1).int() + _channel_part(steps, symbols)
    return EntropyModel(
        nonzero.masked_fill(dead, 0).int(),
        scale.masked_fill(dead, 0),
        positive.masked_fill(dead, NUM_SIGN - 1).int(),
        reference, form.squeeze(1).int())


def _mean_exponent(magnitude: Tensor, token: Tensor) -> Tensor:
    """The mean over what fires, rounded, (B, 1): whole numbers are summed."""
    fires = magnitude > 0
    total = (fires * token).sum((1, 2), dtype=torch.long)
    count = fires.sum((1, 2)).clamp_min(1)
    mean = torch.div(2 * total + count, 2 * count, rounding_mode='floor')
    return mean.clamp(-MAX_EXPONENT, MAX_EXPONENT).int()[:, None]


def _channel_part(steps: Steps, like: Tensor) -> Tensor:
    """The exponents of the channels, (B, C)."""
    batch, _, channels = as_samples(like).shape
    if steps.channel is None or like.dim() == 2:
        return like.new_zeros(batch, channels, dtype=torch.int32)
    return to_tokens(steps.channel).int()[:, 0]


@functools.lru_cache(maxsize=None)
def _tables_on(device: torch.device) -> Tuple[Tensor, Tensor]:
    """:data:`NONZERO` and :data:`POSITIVE` on a device: a copy in every step
    would wait for it."""
    with torch.inference_mode(False):  # they stay for whoever comes next
        return NONZERO.to(device), POSITIVE.to(device)


class Probabilities(NamedTuple):
    """Probabilities that symbols are coded with; see :func:`probabilities`."""
    nonzero: Tensor
    digit: Tensor
    positive: Tensor


def probabilities(model: EntropyModel, steps: Steps,
                  like: Tensor) -> Probabilities:
    """Probabilities of the flag, of every digit, and of a plus sign.

    Args:
        model (EntropyModel): The parameters.
        steps (Steps): The steps.
        like (Tensor): The symbols, or a tensor of their shape.

    Returns:
        Probabilities: ``nonzero`` (B, T, C), float32; ``digit`` (B, T, C),
        int64: the row of :data:`DIGIT`; ``positive`` (B, 1, C), float32. For
        a vector (B, C, 1) and (B, 1, 1).

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.int32)
        >>> zero = 0 * one
        >>> model = EntropyModel(16 * one, zero, 8 * one, zero, zero)
        >>> steps = Steps(torch.ones(1))
        >>> p = probabilities(model, steps, torch.zeros(1, 7, 1))
        >>> p.nonzero.shape, p.positive
        (torch.Size([1, 7, 1]), tensor([[[0.5000]]]))
    """
    low, high = RATIO_RANGE
    ratio = token_exponents(like, steps) - model.scale[:, None]
    row = ratio.clamp_(low, high).sub_(low).long()
    reference = _channel_part(steps, like) + model.reference - model.scale
    column = reference.clamp(low, high).long() - low
    nonzero, positive = _tables_on(like.device)
    # one small table a channel first: features are large
    table = nonzero.transpose(2, 3)[
        model.form.long(), model.nonzero.long(), column]
    shape = as_samples(like).shape
    return Probabilities(
        table.transpose(1, 2).gather(1, row).expand(shape), row.expand(shape),
        positive[model.positive.long()][:, None])


def code_length(quantized: QuantizedLevel) -> Tensor:
    """Bits that an ideal entropy coder takes with this model.

    Without side information: see :mod:`mmfeatjnd.coding` for real bytes.

    Args:
        quantized (QuantizedLevel): Quantized features; without a model, one
            is fitted to them, see :func:`fit_entropy_model`.

    Returns:
        Tensor: (B,), float32, bits of each image. NaN for an image with a
        NaN in its symbols, or without a finite base step.

    Example:
        >>> symbols = torch.tensor([[[0.0], [1.0], [0.0], [-1.0]]])
        >>> quantized = QuantizedLevel(symbols, Steps(torch.ones(1)))
        >>> code_length(quantized).round(decimals=1)  # flags and two signs
        tensor([6.1000])
    """
    symbols, steps, _, model = fit_entropy_model(quantized)
    p = probabilities(model, steps, symbols)
    tokens = as_samples(symbols)
    rest = (tokens.abs() - 1).clamp_min(0)
    fires = tokens != 0
    alive = (model.nonzero > 0)[:, None]
    bits = -torch.where(fires, p.nonzero, 1 - p.nonzero).log2() * alive
    sign = -torch.where(tokens > 0, p.positive, 1 - p.positive).log2()
    low, high = RATIO_RANGE
    ratio = (torch.arange(low, high + 1, device=symbols.device) / 2).exp2()
    # the geometric distribution in closed form: what its digits add up to
    end = (-(-ratio).expm1()).log2()
    value = rest * (ratio * LOG2E)[p.digit] - end[p.digit]
    bits = bits + fires * (sign + value)
    bits = bits.flatten(1).sum(1)
    return torch.where(steps.base.isfinite(), bits, torch.nan)


def empirical_entropy(symbols: Tensor) -> Tensor:
    """Zero-order entropy of the symbols of each image: one histogram for all
    elements.

    Args:
        symbols (Tensor): Integer values, (B, ...).

    Returns:
        Tensor: (B,), float32, bits per element. NaN for an image with a NaN.

    Example:
        >>> empirical_entropy(torch.tensor([[0.0, 1.0, 0.0, -1.0]]))
        tensor([1.5000])
    """
    flat = symbols.flatten(1)
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
    entropy = -torch.special.xlogy(share, share).sum(1) * LOG2E
    return torch.where(broken, torch.nan, entropy)
