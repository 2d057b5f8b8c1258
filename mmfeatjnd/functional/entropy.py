r"""How many bits quantized features take.

The model that the bitstream codes with, too: within one channel of one image
the values have exponential tails. A symbol q is coded as a flag "not 0", a
sign, and |q| - 1, which is geometric:

.. math:: P(q \ne 0) = \pi\, e^{-(\Delta_t - \Delta_0) / 2b}, \quad
    P(|q| > m + 1 \mid |q| > m) = e^{-\Delta_t / b}

with three parameters a channel and image, sent with the features: the
probability pi at the channel's reference step Delta_0, the scale b, and the
share of positive signs. It needs no training data, adapts to every image, and
works for steps that vary within the channel. The values of a vector (B, C)
share one model: one value cannot pay for three parameters. b lies on the grid
of the steps (:func:`mmfeatjnd.functional.steps.half_octaves`), so Delta / b
takes few values and the probabilities come from small tables of 16-bit
numbers: encoder and decoder agree on every machine. Ours.
"""
import functools
from typing import NamedTuple, Tuple

import numpy as np
import torch
from torch import Tensor

from .layout import to_tokens
from .quantized import EntropyModel, QuantizedLevel
from .steps import Steps

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
    change = (ratio[:, None] - ratio[None]) / 2  # (R, R reference)
    with np.errstate(over='ignore'):
        nonzero = pi[:, None, None] * np.exp(-change)  # (P, R, R)
    # the digit 2^d is 1 with probability r / (1 + r), r = rho^(2^d)
    weight = 2.0**np.arange(DIGITS)
    digit = 1 / (1 + np.exp(np.minimum(ratio[:, None] * weight, 700)))
    return (_probability(nonzero), _probability(digit),
            _probability(np.arange(NUM_SIGN) / (NUM_SIGN - 1)))


#: (NUM_PI, R, R), (R, DIGITS), (NUM_SIGN,): probabilities of a 1.
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


def moments(magnitude: Tensor, step: Tensor):
    """Statistics of what fires in a model: which values do, (B, T, C), their
    number, mean step, and the share of the excess over the first symbol,
    (B, 1, C) each."""
    fires = (magnitude > 0).float()
    count = fires.sum(1, keepdim=True)
    some = count.clamp_min(1)
    mean_step = (fires * step).sum(1, keepdim=True) / some
    excess = ((magnitude - 1).clamp_min(0) * step).sum(1, keepdim=True) / some
    rho = excess / (excess + mean_step).clamp_min(1e-20)
    return fires, count, mean_step, rho


def fit_entropy_model(quantized: QuantizedLevel) -> QuantizedLevel:
    """Quantized features with the model that is fitted to them, by moments.

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
    magnitude = as_samples(symbols).abs().nan_to_num(0)  # (B, T, C)
    exponent = token_exponents(symbols, steps)
    step = (exponent.float() / 2).exp2()  # relative to the base
    count, mean_step, rho = (
        x.squeeze(1) for x in moments(magnitude, step)[1:])
    # where hardly any symbol exceeds 1 the moments say nothing about b, and a
    # tiny one would make every larger step that fires cost 16 bits
    b = mean_step / -rho.clamp(1 / 64, 1 - 1e-6).log()
    reference = _reference(steps, symbols)
    low, high = RATIO_RANGE
    scale = (2 * b.clamp_min(1e-20).log2()).round()
    scale = torch.minimum(torch.maximum(scale, reference - high),
                          reference - low).int()
    ratio = ((exponent - scale[:, None]).float() / 2).exp2()  # (B, T, C)
    ratio0 = ((reference - scale).float() / 2).exp2()
    share = (-(ratio - ratio0[:, None]) / 2).exp()
    pi = count / share.expand_as(magnitude).sum(1).clamp_min(1e-20)
    angle = pi.clamp(0, 1).sqrt().asin() / (torch.pi / 2)
    nonzero = (angle * (NUM_PI - 1) + 0.5).round().clamp(1, NUM_PI - 1)
    plus = (as_samples(symbols) > 0).float().sum(1) / count.clamp_min(1)
    positive = (plus * (NUM_SIGN - 1)).round()
    dead = count == 0
    return EntropyModel(
        nonzero.masked_fill(dead, 0).int(),
        scale.masked_fill(dead, 0),
        positive.masked_fill(dead, NUM_SIGN - 1).int())


def _reference(steps: Steps, like: Tensor) -> Tensor:
    """Exponent of the channel's reference step: that of token exponent 0."""
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
        >>> p = probabilities(EntropyModel(16 * one, 0 * one, 8 * one),
        ...                   Steps(torch.ones(1)), torch.zeros(1, 7, 1))
        >>> p.nonzero.shape, p.positive
        (torch.Size([1, 7, 1]), tensor([[[0.5000]]]))
    """
    low, high = RATIO_RANGE
    ratio = token_exponents(like, steps) - model.scale[:, None]
    row = ratio.clamp_(low, high).sub_(low).long()
    reference = _reference(steps, like) - model.scale
    column = reference.clamp(low, high).long() - low
    nonzero, positive = _tables_on(like.device)
    # one small table a channel first: features are large
    table = nonzero.transpose(1, 2)[model.nonzero.long(), column]
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
