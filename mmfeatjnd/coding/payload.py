"""One level of quantized features: parameters, exponents, symbols.

Symbols are coded with the model of :mod:`mmfeatjnd.functional.entropy`, and so
are the small integers beside them, as one channel with steps of 1.
"""
import math
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from mmfeatjnd.functional import (
    EntropyModel,
    QuantizedLevel,
    Steps,
    fit_entropy_model,
    from_tokens,
    probabilities,
)
from mmfeatjnd.functional.entropy import (
    DIGIT,
    NONZERO,
    NUM_PI,
    NUM_SIGN,
    POSITIVE,
    RATIO_RANGE,
    Probabilities,
    as_samples,
)
from mmfeatjnd.functional.steps import MAX_EXPONENT
from mmfeatjnd.functional.symbols import MAX_SYMBOL
from .entropy_coder import BitReader, BitstreamError, BitWriter

EXPONENTS = ('token', 'channel', 'element')
_LIMIT = 2 * MAX_EXPONENT - RATIO_RANGE[0]
#: Least and largest value of each parameter of the model, as the stream holds
#: it.
PARAMETER_RANGES = EntropyModel((0, NUM_PI - 1), (-_LIMIT, _LIMIT),
                                (0, NUM_SIGN - 1),
                                (-MAX_EXPONENT, MAX_EXPONENT), (0, 1))
_NONZERO, _DIGIT, _POSITIVE = (
    x.numpy() for x in (NONZERO, DIGIT, POSITIVE))
_LOW, _HIGH = RATIO_RANGE
_UNIT = -_LOW  # where the tables hold the ratio 1


# -------------------------------------------------------------------- values
def _write_values(writer: BitWriter, values: np.ndarray,
                  p: Probabilities) -> None:
    """Integers, (T, C), with probabilities of that shape."""
    fires = values != 0
    writer.write(fires, p.nonzero)
    fired = values[fires]
    writer.write(fired > 0, p.positive[fires])
    rest = np.abs(fired) - 1
    digits = int(rest.max(initial=0)).bit_length()
    writer.write_number(digits, 4)
    row = p.digit[fires]
    for d in range(digits):
        writer.write(rest >> d & 1, _DIGIT[row, d])


def _read_values(reader: BitReader, p: Probabilities) -> np.ndarray:
    fires = reader.read(p.nonzero) > 0
    sign = 2 * reader.read(p.positive[fires]) - 1
    digits = reader.read_number(4)
    row = p.digit[fires]
    rest = np.zeros(len(row), np.int32)
    for d in range(digits):
        rest |= reader.read(_DIGIT[row, d]) << d
    if rest.max(initial=0) >= MAX_SYMBOL:
        raise BitstreamError('corrupted payload: impossible magnitudes')
    values = np.zeros(fires.shape, np.int32)
    values[fires] = sign * (rest + 1)
    return values


def _alive(model: EntropyModel, steps: Steps,
           like: Tensor) -> Tuple[np.ndarray, Probabilities]:
    """Which channels are not all zero, and the probabilities of these."""
    alive = (model.nonzero[0] > 0).numpy()
    nonzero, digit, positive = (
        x[0].numpy() for x in probabilities(model, steps, like))
    nonzero = nonzero[:, alive]
    digit = digit.astype(np.uint8)[:, alive]
    positive = np.broadcast_to(positive[:, alive], nonzero.shape)
    return alive, Probabilities(nonzero, digit, positive)


# ------------------------------------------------------------ small integers
class _Geometric(NamedTuple):
    """The model of integers whose steps are all 1; see
    :class:`mmfeatjnd.functional.EntropyModel`."""
    nonzero: int = 0
    scale: int = 0
    positive: int = 0

    def probabilities(self, size: int) -> Probabilities:
        row = _UNIT - self.scale
        return Probabilities(
            np.full((size, 1), _NONZERO[0, self.nonzero, row, row]),
            np.full((size, 1), row), np.full((size, 1),
                                             _POSITIVE[self.positive]))


def _fit(values: np.ndarray) -> Tuple[_Geometric, float]:
    """Model and code length of side information: what ``fit_entropy_model``
    and ``code_length`` do, for steps of 1, from four sums. Steps that do not
    vary need no bound on a small rho."""
    size, fires = values.size, np.count_nonzero(values)
    if not fires:
        return _Geometric(), 0.0
    excess = int(np.abs(values).sum()) - fires
    plus = np.count_nonzero(values > 0)
    rho = min(max(excess / (excess + fires), 1e-6), 1 - 1e-6)
    scale = round(2 * math.log2(-1 / math.log(rho)))
    scale = min(max(scale, -_HIGH), -_LOW)
    angle = math.asin(math.sqrt(fires / size)) / (math.pi / 2)
    nonzero = round(angle * (NUM_PI - 1) + 0.5)
    nonzero = min(max(nonzero, 1), NUM_PI - 1)
    sign = round(plus / fires * (NUM_SIGN - 1))
    p = float(_NONZERO[0, nonzero, _UNIT - scale, _UNIT - scale])
    positive = float(_POSITIVE[sign])
    ratio = 2**(-scale / 2)
    nats = (fires * math.log(p) + (size - fires) * math.log1p(-p) +
            plus * math.log(positive) +
            (fires - plus) * math.log1p(-positive) - excess * ratio +
            fires * math.log(-math.expm1(-ratio)))
    return _Geometric(nonzero, scale, sign), -nats / math.log(2)


def _write_integers(writer: BitWriter, values: np.ndarray) -> None:
    """An array of small integers, (n,) or (H, W): residuals to the median, or
    to the neighbour before, whichever is shorter."""
    median = int(np.clip(np.median(values), -128, 127))
    choices = values - median, _differences(values, median)
    fits = [_fit(x) for x in choices]
    chosen = int(fits[1][1] < fits[0][1])
    fit = fits[chosen][0]
    writer.write_number(
        (median + 128) | chosen << 8 | fit.nonzero << 9, 15)
    if fit.nonzero:
        writer.write_number(fit.scale + _HIGH | fit.positive << 6, 11)
        flat = choices[chosen].reshape(-1, 1)
        _write_values(writer, flat, fit.probabilities(flat.size))


def _read_integers(reader: BitReader, shape: Tuple[int, ...]) -> np.ndarray:
    number = reader.read_number(15)
    median = (number & 255) - 128
    chosen, nonzero = number >> 8 & 1, number >> 9
    residual = np.zeros(shape, np.int64)
    if nonzero:
        number = reader.read_number(11)
        fit = _Geometric(nonzero, (number & 63) - _HIGH, number >> 6)
        if nonzero >= NUM_PI or fit.scale > -_LOW or \
                fit.positive >= NUM_SIGN:
            raise BitstreamError('corrupted payload: impossible parameters')
        residual[...] = _read_values(
            reader, fit.probabilities(residual.size)).reshape(shape)
    if not chosen:
        return residual + median
    # down the first column, then along the rows
    residual[..., 0] = residual[..., 0].cumsum().reshape(
        shape[:-1]) + median
    return residual.cumsum(-1)


def _differences(values: np.ndarray, start: int) -> np.ndarray:
    out = np.diff(values, axis=-1, prepend=0)
    first = values[..., 0]
    out[..., 0] = np.diff(first, prepend=start) if first.ndim else \
        first - start
    return out


def _rows(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """Maps keep their rows, so that neighbours predict each other."""
    size = math.prod(shape)
    if len(shape) == 3 and shape[-1] > 1:
        return size // shape[-1], shape[-1]
    return (size, )


def _write_form(writer: BitWriter, reference: int, form: int) -> None:
    """One bit where both are 0, as for steps that do not vary."""
    some = reference != 0 or form != 0
    writer.write_number(some, 1)
    if some:
        writer.write_number(reference + MAX_EXPONENT | form << 8, 9)


def _read_form(reader: BitReader) -> List[np.ndarray]:
    number = reader.read_number(9) if reader.read_number(1) else MAX_EXPONENT
    return [np.array([(number & 255) - MAX_EXPONENT]),
            np.array([number >> 8])]


# ------------------------------------------------------------------- payload
def exponent_shape(name: str, dims: Sequence[int]) -> Tuple[int, ...]:
    """Shape of the exponents of one image.

    Args:
        name (str): One of :data:`EXPONENTS`.
        dims (Sequence[int]): Shape of the feature without the batch.
    """
    if name == 'element':
        return tuple(dims)
    channel = 1 if len(dims) == 2 else 0
    return tuple(n if (d == channel) == (name == 'channel') else 1
                 for d, n in enumerate(dims))


def encode_payload(quantized: QuantizedLevel) -> bytes:
    """Bytes of one level of one image.

    Args:
        quantized (QuantizedLevel): The level, for a batch of 1, on the CPU;
            its model is fitted here if it has none.
    """
    symbols, steps, _, model = fit_entropy_model(quantized)
    writer = BitWriter()
    for parameter in model[:3]:
        _write_integers(writer, parameter[0].numpy())
    _write_form(writer, int(model.reference), int(model.form))
    for name in EXPONENTS:
        exponent = getattr(steps, name)
        if exponent is not None:
            values = exponent[0].int().numpy()
            _write_integers(writer, values.reshape(_rows(values.shape)))
    alive, p = _alive(model, steps, symbols)
    _write_values(writer, as_samples(symbols)[0].int().numpy()[:, alive], p)
    return writer.finish()


def decode_payload(payload: bytes, dims: Sequence[int],
                   exponents: Sequence[str]) -> QuantizedLevel:
    """One level of one image from its bytes.

    Args:
        payload (bytes): What :func:`encode_payload` returned.
        dims (Sequence[int]): Shape of the feature without the batch.
        exponents (Sequence[str]): Which of :data:`EXPONENTS` there are.

    Returns:
        QuantizedLevel: Symbols in float32, with their model, and steps with
        base 1.

    Raises:
        BitstreamError: It is no payload of this shape.
    """
    reader = BitReader(payload)
    like = torch.empty(1).expand(1, *dims)  # of this shape, without memory
    models = as_samples(like).size(2)
    parameters = [
        _read_integers(reader, (models, )) for _ in EntropyModel._fields[:3]
    ]
    parameters += _read_form(reader)
    parts = {}
    for name in exponents:
        shape = exponent_shape(name, dims)
        values = _read_integers(reader, _rows(shape)).reshape(shape)
        _check(values, -MAX_EXPONENT, MAX_EXPONENT)
        parts[name] = torch.from_numpy(values).int()[None]
    for x, (low, high) in zip(parameters, PARAMETER_RANGES):
        _check(x, low, high)
    model = EntropyModel(
        *(torch.from_numpy(x).int()[None] for x in parameters))
    steps = Steps(torch.ones(1), **parts)
    alive, p = _alive(model, steps, like)
    values = torch.zeros(as_samples(like).shape)
    values[0][:, torch.from_numpy(alive)] = torch.from_numpy(
        _read_values(reader, p)).float()
    if not reader.exhausted():
        raise BitstreamError('corrupted payload: bytes are left over')
    return QuantizedLevel(from_tokens(values, like), steps, model=model)


def _check(values: np.ndarray, low: int, high: int) -> None:
    if values.min() < low or values.max() > high:
        raise BitstreamError('corrupted payload: impossible parameters')
