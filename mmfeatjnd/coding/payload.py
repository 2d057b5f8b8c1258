"""One level of quantized features: parameters, exponents, symbols.

Symbols are coded with the model of :mod:`mmfeatjnd.functional.entropy`, and so
are the small integers beside them, as one channel with steps of 1.
"""
import math
from typing import Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from mmfeatjnd.functional import (
    EntropyModel,
    QuantizedLevel,
    Steps,
    fit_entropy_model,
    from_tokens,
)
from mmfeatjnd.functional.entropy import (
    CLASS_RANGE,
    MAX_CENTRE,
    MAX_SCALE,
    as_samples,
    interval_bits,
    scale_class,
    symbol_classes,
)
from mmfeatjnd.functional.steps import MAX_EXPONENT
from .entropy_coder import BitstreamError, SymbolReader, SymbolWriter

EXPONENTS = ('token', 'channel', 'element')


# ------------------------------------------------------------ small integers
def _class_of(values: np.ndarray) -> Tuple[int, float]:
    """The class of the shortest code for integers, and its bits."""
    sizes, counts = np.unique(np.abs(values), return_counts=True)
    classes = np.arange(CLASS_RANGE[0], CLASS_RANGE[1] + 1)
    inverse = torch.from_numpy(2.0**(-classes / 4))[:, None]
    size = torch.from_numpy(sizes.astype(np.float64))
    bits = interval_bits((size - 0.5) * inverse, (size + 0.5) * inverse)
    bits = (bits * torch.from_numpy(counts)).sum(1)
    best = int(bits.argmin())
    return int(classes[best]), float(bits[best])


def _write_integers(writer: SymbolWriter, values: np.ndarray) -> None:
    """An array of small integers, (n,) or (H, W): residuals to the median, or
    to the neighbour before, whichever is shorter."""
    median = int(np.median(values))
    choices = values - median, _differences(values, median)
    classes = [_class_of(x) for x in choices]
    chosen = int(classes[1][1] < classes[0][1])
    index = classes[chosen][0]
    writer.write_number(median + (1 << 12), 13)
    writer.write_number(index - CLASS_RANGE[0] << 1 | chosen, 8)
    flat = choices[chosen].ravel()
    writer.write(flat, np.full(flat.size, index), np.zeros(flat.size, int))


def _read_integers(reader: SymbolReader,
                   shape: Tuple[int, ...]) -> np.ndarray:
    median = reader.read_number(13) - (1 << 12)
    number = reader.read_number(8)
    index, chosen = (number >> 1) + CLASS_RANGE[0], number & 1
    if index > CLASS_RANGE[1]:
        raise BitstreamError('corrupted payload: impossible parameters')
    size = math.prod(shape)
    residual = reader.read(
        np.full(size, index, np.int32), np.zeros(size, np.int32)
    ).reshape(shape).astype(np.int64)
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


def _flat_classes(model: EntropyModel, steps: Steps,
                  like: Tensor) -> Tuple[np.ndarray, np.ndarray, bool]:
    """Class and centre of every symbol, (N,), and whether none is below 0."""
    shape = as_samples(like)[0].shape
    index, centre = (
        x[0].expand(shape).flatten().numpy()
        for x in (symbol_classes(model, steps, like), model.centre[:, None]))
    return index, centre, bool(model.rectified[0, 0])


def write_level(writer: SymbolWriter, quantized: QuantizedLevel,
                known: bool = False) -> None:
    """Append one level of one image.

    Args:
        writer (SymbolWriter): What it is written to.
        quantized (QuantizedLevel): The level, for a batch of 1, on the CPU;
            a model is fitted here if it has none.
        known (bool): The receiver has the model. Defaults to False: it is
            sent, too.
    """
    symbols, steps, _, model = fit_entropy_model(quantized)
    if not known:
        scale = model.scale - scale_class(steps.base)[:, None]
        _write_integers(writer, scale[0].numpy())
        _write_integers(writer, model.centre[0].numpy())
        writer.write_number(int(model.rectified), 1)
    for name in EXPONENTS:
        exponent = getattr(steps, name)
        if exponent is not None:
            values = exponent[0].int().numpy()
            _write_integers(writer, values.reshape(_rows(values.shape)))
    values = as_samples(symbols)[0].int().flatten().numpy()
    writer.write(values, *_flat_classes(model, steps, symbols))


def read_level(reader: SymbolReader,
               dims: Sequence[int],
               base: float,
               exponents: Sequence[str],
               model: Optional[EntropyModel] = None) -> QuantizedLevel:
    """The next level of one image.

    Args:
        reader (SymbolReader): What it is read from.
        dims (Sequence[int]): Shape of the feature without the batch.
        base (float): Base step.
        exponents (Sequence[str]): Which of :data:`EXPONENTS` there are.
        model (EntropyModel, optional): That of the receiver. Defaults to
            None: it is read, too.

    Returns:
        QuantizedLevel: Symbols in float32, with their model.

    Raises:
        BitstreamError: It is no level of this shape.
    """
    like = torch.empty(1).expand(1, *dims)  # of this shape, without memory
    steps = Steps(torch.tensor([base]))
    if model is None:
        shape = (as_samples(like).size(2), )
        scale, centre = (_read_integers(reader, shape) for _ in range(2))
        _check(scale, MAX_SCALE)
        _check(centre, MAX_CENTRE)
        scale = scale + int(scale_class(steps.base))
        model = EntropyModel(*(
            torch.from_numpy(x).int()[None]
            for x in (scale, centre, np.array([reader.read_number(1)]))))
    for name in exponents:
        shape = exponent_shape(name, dims)
        values = _read_integers(reader, _rows(shape)).reshape(shape)
        _check(values, MAX_EXPONENT)
        steps = steps._replace(**{name: torch.from_numpy(values).int()[None]})
    values = torch.from_numpy(
        reader.read(*_flat_classes(model, steps, like))).float()
    values = values.view(as_samples(like).shape)
    return QuantizedLevel(from_tokens(values, like), steps, model=model)


def _check(values: np.ndarray, limit: int) -> None:
    if np.abs(values).max(initial=0) > limit:
        raise BitstreamError('corrupted payload: impossible parameters')
