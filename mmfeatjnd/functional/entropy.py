r"""How many bits quantized features take.

The model that the bitstream codes with, too: what a channel holds is
logistic, and its symbol q at the step :math:`\Delta` has the probability

.. math:: P(q) = F\left(\frac{(q + 1/2) \Delta - \mu}{s}\right) -
    F\left(\frac{(q - 1/2) \Delta - \mu}{s}\right), \quad
    F(x) = \frac{1}{1 + e^{-x}}

of a scale s and a centre :math:`\mu` of the channel. Where no feature is below
0, as after a ReLU, all that the logistic distribution has there is 0, too:
the lower end of q = 0 is :math:`-\infty`. So one scale serves all steps, and
the scales may come from training pictures (a codec's plan; then an image sends
none), or be fitted to the image and sent with it.

Scales lie on a grid of quarter octaves and centres on one of quarters of s,
so s / Delta takes few values, each of which is one table of probabilities
for a range coder: encoder and decoder agree on every machine. The values of
a vector (B, C) share one model: one value cannot pay for its own. That a
logistic distribution with a scale from training pictures comes within 0.3 %
of the entropy of task-metric components is measured; ours.
"""
import functools
import math
from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import to_tokens
from .quantized import EntropyModel, QuantizedLevel
from .steps import MAX_EXPONENT, Steps

#: log2(s / Delta), quarter octaves: least and largest class. Narrower than
#: 1/23 of a step is as good as 0.
CLASS_RANGE = (-18, 60)
#: Centres, quarters of s: the same on either side.
MAX_CENTRE = 2047
#: Scales relative to the base step, quarter octaves: the same on either side.
MAX_SCALE = 6 * MAX_EXPONENT + CLASS_RANGE[1]
#: Classes above this one code their lowest bits as they are.
_WIDE = 15
_TAIL = 16  # where a table ends, in units of s
LOG2E = 1.4426950408889634


def as_samples(x: Tensor) -> Tensor:
    """Samples by models: (B, T, C), and (B, C, 1) for a vector (B, C)."""
    return x[..., None] if x.dim() == 2 else to_tokens(x)


def scale_class(scale: Tensor) -> Tensor:
    """Quarter octaves of a scale: what an :class:`EntropyModel` holds of it.

    Args:
        scale (Tensor): s > 0, any shape; 0 becomes the finest that there is.

    Returns:
        Tensor: The same shape, int32: round(4 log2 s).

    Example:
        >>> scale_class(torch.tensor([1.0, 2.0, 0.25]))
        tensor([ 0,  4, -8], dtype=torch.int32)
    """
    tiny = torch.finfo(torch.float32).tiny
    log = 4 * scale.double().clamp_min(tiny).log2()
    return log.round().nan_to_num(0, 0, 0).int()


# ---------------------------------------------------------------- the classes
def symbol_classes(model: EntropyModel, steps: Steps, like: Tensor) -> Tensor:
    """The class of every symbol: quarter octaves of s / Delta.

    Args:
        model (EntropyModel): The parameters.
        steps (Steps): The steps.
        like (Tensor): The symbols, or a tensor of their shape.

    Returns:
        Tensor: Broadcastable to :func:`as_samples`, int32, within
        :data:`CLASS_RANGE`.

    Example:
        >>> model = EntropyModel(*torch.tensor([[[4]], [[0]], [[0]]]))
        >>> steps = Steps(torch.tensor([0.5]))
        >>> symbol_classes(model, steps, torch.zeros(1, 7, 1))
        tensor([[[8]]], dtype=torch.int32)
    """
    base = scale_class(steps.base)[:, None, None]
    found = model.scale.int()[:, None] - base
    exponent = steps.exponent
    if not isinstance(exponent, int):
        found = found - 2 * as_samples(exponent).int()
    return found.clamp(*CLASS_RANGE)


def interval_bits(low: Tensor, high: Tensor) -> Tensor:
    """-log2(F(high) - F(low)), without a difference of what is nearly 1.

    Args:
        low (Tensor): Lower end, in units of s from the centre.
        high (Tensor): Upper end, broadcastable.

    Returns:
        Tensor: Bits.

    Example:
        >>> interval_bits(torch.tensor(0.0), torch.tensor(100.0)).round()
        tensor(1.)
    """
    nats = F.softplus(low) + F.softplus(high) - high - (
        -(low - high).exp()).log1p()
    return LOG2E * nats


def symbol_bits(symbols: Tensor, inverse: Tensor, centre: Tensor,
                rectified: Tensor) -> Tensor:
    """Bits of symbols.

    Args:
        symbols (Tensor): q, of any value.
        inverse (Tensor): Delta / s, broadcastable.
        centre (Tensor): mu / s, broadcastable.
        rectified (Tensor): Whether nothing is below 0, bool, broadcastable.

    Returns:
        Tensor: The shape of ``symbols``.

    Example:
        >>> one, zero = torch.ones(()), torch.zeros(())
        >>> symbol_bits(torch.tensor([0.0, 1.0]), one, zero, zero > 0)
        tensor([2.0296, 2.3576])
    """
    low = (symbols - 0.5) * inverse - centre
    low = torch.where(rectified & (symbols <= 0), -1e4, low)
    return interval_bits(low, (symbols + 0.5) * inverse - centre)


class Table(NamedTuple):
    r"""What a range coder knows of one class; see :func:`class_table`.

    A symbol q is coded as its bin, :math:`\lfloor (q - o) / 2^b \rfloor`, and
    its place in it, b bits that are as good as even.

    Attributes:
        probabilities (np.ndarray): (K,), float64: of a bin below the first,
            of 0 where ``zero``, of the bins, and of one above the last.
        first (int): The first bin.
        bits (int): b, bits of the place.
        shift (int): o, the lowest symbol of the bin 0.
        zero (bool): The symbol 0 is in no bin.
    """
    probabilities: np.ndarray
    first: int
    bits: int
    shift: int
    zero: bool


@functools.lru_cache(maxsize=1 << 14)
def class_table(index: int, centre: int, rectified: bool) -> Table:
    """The table of one class.

    Args:
        index (int): Quarter octaves of s / Delta.
        centre (int): Quarters of s.
        rectified (bool): Nothing is below 0.

    Returns:
        Table: Its probabilities are multiples of 2^-30.

    Example:
        >>> table = class_table(0, 0, False)  # s is one step
        >>> table.first, len(table.probabilities)
        (-16, 35)
        >>> round(float(table.probabilities[17]), 4)  # of the symbol 0
        0.2449
    """
    ratio = 2.0**(index / 4)
    mean = centre / 4 * ratio
    bits = max(0, (index - _WIDE + 3) // 4)
    if rectified:
        shift = 1
    else:
        shift = round(mean) - (1 << bits >> 1)
    reach = _TAIL * ratio
    first = math.floor((mean - reach - shift) / (1 << bits))
    last = math.ceil((mean + reach - shift) / (1 << bits))
    if rectified:
        first, last = max(first, 0), max(last, 0)
    edges = shift + np.arange(first, last + 2) * (1 << bits) - 0.5
    edges = (np.append(edges, 0.5) - mean) / ratio
    # of the nearer tail, so that nothing is lost beside 1
    tail = 1 / (1 + np.exp(np.minimum(np.abs(edges), 700)))
    below = np.where(edges > 0, 1 - tail, tail)
    above = np.where(edges > 0, tail, 1 - tail)
    *below, zero = below
    *above, _ = above
    inner = np.where(edges[:-2] > 0, -np.diff(above), np.diff(below))
    ends = [below[0] - zero, zero] if rectified else below[:1]
    p = np.concatenate([ends, inner, above[-1:]])
    return Table(np.maximum(np.round(p * 2**30), 1) / 2**30, first, bits,
                 shift, rectified)


# -------------------------------------------------------------------- the fit
_FITTED = 4096  # tokens that are looked at


def fit_entropy_model(quantized: QuantizedLevel) -> QuantizedLevel:
    """Quantized features with the model that is fitted to them.

    What has a model comes back as it is: :func:`code_length` counts and
    :func:`mmfeatjnd.coding.encode_image` codes with the model that is there.

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
        >>> quantized.model.scale.shape
        torch.Size([1, 2])
        >>> fit_entropy_model(quantized) is quantized
        True
    """
    if quantized.model is not None:
        return quantized
    symbols, steps = quantized.symbols, quantized.steps
    return quantized._replace(model=_fit(symbols, steps))


@torch.no_grad()
def _fit(symbols: Tensor, steps: Steps) -> EntropyModel:
    samples = as_samples(symbols).nan_to_num(0, 0, 0)
    rectified = (samples >= 0).flatten(1).all(1)[:, None]
    exponent = steps.exponent
    exponent = torch.zeros_like(samples[:, :1, :1]) if isinstance(
        exponent, int) else as_samples(exponent).float()
    stride = -(-samples.size(1) // _FITTED)
    samples = samples[:, ::stride]
    if exponent.size(1) > 1:
        exponent = exponent[:, ::stride]
    low, high = CLASS_RANGE

    def bits(scale: Tensor, centre: Tensor) -> Tensor:
        """(B, 1, C), of scales relative to the base."""
        inverse = ((2 * exponent - scale).clamp(-high, -low) / 4).exp2()
        return symbol_bits(samples, inverse, centre / 4,
                           rectified[..., None]).sum(1, keepdim=True)

    value = samples * (exponent / 2).exp2()
    mean = value.mean(1, keepdim=True)
    size = (value - mean).abs().mean(1, keepdim=True) / (2 * math.log(2))
    odds = (samples == 0).float().mean(1, keepdim=True).logit(1e-4)
    # two starts by moments, those of the whole and of what a ReLU left of it;
    # then downhill over the grid
    scale = centre = best = None
    for size, middle in ((size, mean), (mean / F.softplus(-odds), None)):
        s = (4 * size.clamp_min(2**(low / 4)).log2()).round()
        s = s.clamp(-MAX_SCALE, MAX_SCALE)
        c = -odds if middle is None else middle / (s / 4).exp2()
        c = (4 * c).round().clamp(-MAX_CENTRE, MAX_CENTRE)
        scale, centre, best = _better(
            (scale, centre, best), (s, c, bits(s, c)))
    for stride in (8, 4, 2, 1, 2, 1):
        for right, up in ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (1, -2)):
            for sign in (stride, -stride):
                s = (scale + sign * right).clamp(-MAX_SCALE, MAX_SCALE)
                # the centre stays where it is as the scale changes
                c = centre * ((scale - s) / 4).exp2() + sign * up
                c = c.round().clamp(-MAX_CENTRE, MAX_CENTRE)
                scale, centre, best = _better(
                    (scale, centre, best), (s, c, bits(s, c)))
    base = scale_class(steps.base)[:, None]
    return EntropyModel((scale[:, 0] + base).int(), centre[:, 0].int(),
                        rectified.int())


def _better(known: Tuple[Optional[Tensor], ...],
            found: Tuple[Tensor, ...]) -> Tuple[Tensor, ...]:
    """The shorter of two fits, channel by channel; the last are bits."""
    if known[-1] is None:
        return found
    better = found[-1] < known[-1]
    return tuple(torch.where(better, b, a) for a, b in zip(known, found))


# -------------------------------------------------------------------- lengths
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
        >>> model = EntropyModel(*torch.tensor([[[0]], [[0]], [[0]]]))
        >>> quantized = QuantizedLevel(
        ...     symbols, Steps(torch.ones(1)), model=model)
        >>> code_length(quantized).round(decimals=1)
        tensor([8.8000])
    """
    symbols, steps, _, model = fit_entropy_model(quantized)
    index = symbol_classes(model, steps, symbols)
    bits = symbol_bits(
        as_samples(symbols), (-index / 4).exp2(), model.centre[:, None] / 4,
        model.rectified[:, None] > 0)
    bits = bits.flatten(1).sum(1)
    return torch.where(steps.base.isfinite(), bits, torch.nan)


@functools.lru_cache(maxsize=1)
def _errors() -> Tensor:
    """E[e^2] in units of the step by class, of rounded logistic values."""
    share = (np.arange(1 << 14) + 0.5) / (1 << 14)
    value = np.log(share / (1 - share))
    classes = np.arange(CLASS_RANGE[0], CLASS_RANGE[1] + 1)
    scaled = value * 2.0**(classes[:, None] / 4)
    return torch.from_numpy(np.square(scaled - scaled.round()).mean(1))


def expected_error(ratio: Tensor) -> Tensor:
    r"""What rounding errs, of logistic values.

    .. math:: \mathrm{E}[(x - \lfloor x \rceil)^2], \quad x \sim
        \mathrm{Logistic}(0, s / \Delta)

    1 / 12 where the step is fine; the variance of the value where it is
    coarse, since all becomes 0.

    Args:
        ratio (Tensor): s / Delta, > 0, any shape.

    Returns:
        Tensor: The same shape, float64, in squared steps.

    Example:
        >>> (12 * expected_error(torch.tensor([4.0, 0.25]))).round(decimals=2)
        tensor([1.0000, 0.9100], dtype=torch.float64)
    """
    low, high = CLASS_RANGE
    index = scale_class(ratio)
    found = _errors().to(ratio.device)[
        (index.clamp(low, high) - low).long()]
    variance = math.pi**2 / 3 * ratio.double().square()
    return torch.where(index < low, variance, found)
