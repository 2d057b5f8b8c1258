"""The body of a stream: one image's quantized features.

Layout, all numbers little-endian::

    version u8 | number of levels u8
    per level: form u8 | dims varint... | base f32
    payload

``form``: bits 0-1 the number of dims without the batch, bits 2-3 the dtype
that the features had, bits 4-6 which of token, channel and element exponents
there are. The payload holds of every level the parameters of the entropy
model, the exponents, and the symbols (see :mod:`mmfeatjnd.coding.payload`),
all by one range coder. The steps travel with the features: a decoder needs
neither the estimator nor the policy.
"""
import math
import struct
from typing import List, Sequence, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import EntropyModel, QuantizedLevel
from mmfeatjnd.functional.entropy import (
    MAX_CENTRE,
    MAX_SCALE,
    as_samples,
    scale_class,
)
from mmfeatjnd.functional.steps import MAX_EXPONENT
from mmfeatjnd.functional.symbols import MAX_SYMBOL
from .entropy_coder import BitstreamError, SymbolReader, SymbolWriter
from .payload import EXPONENTS, exponent_shape, read_level, write_level

VERSION = 3
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: A file that claims more elements than this is refused.
MAX_ELEMENTS = 1 << 25
_MAX_FLOAT = torch.finfo(torch.float32).max


# --------------------------------------------------------------------- write
def varint(value: int) -> bytes:
    """A number >= 0 in 7 bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _check(quantized: QuantizedLevel) -> None:
    """Raise unless a decoder can read what would be written."""
    symbols, steps, dtype, model = quantized
    shape = tuple(symbols.shape)
    if dtype not in DTYPES:
        raise TypeError(f'features must be one of {DTYPES}, but got {dtype}')
    if symbols.dim() not in (2, 3, 4) or not symbols.numel():
        raise ValueError('symbols must be (B, C, H, W), (B, N, C) or (B, C) '
                         f'and not empty, but got {shape}')
    if not ((symbols.abs() <= MAX_SYMBOL)
            & (symbols == symbols.round())).all():
        raise ValueError(f'symbols must be integers within +-{MAX_SYMBOL}: '
                         'quantize the features first')
    wanted = {n: (len(symbols), *exponent_shape(n, shape[1:]))
              for n in EXPONENTS}
    wanted.update(base=shape[:1])
    for name, x in steps._asdict().items():
        if x is None:
            continue
        if tuple(x.shape) != wanted[name]:
            raise ValueError(f'steps.{name} must have shape {wanted[name]} '
                             f'for symbols {shape}, but has {tuple(x.shape)}')
        if name in EXPONENTS and not ((x.abs() <= MAX_EXPONENT)
                                      & (x == x.round())).all():
            raise ValueError(f'steps.{name} must be integers within '
                             f'+-{MAX_EXPONENT}')
    if not (steps.base > 0).all() or not _representable(quantized):
        raise ValueError('steps must be positive, and symbols times steps '
                         'within the range of float32')
    if model is not None:
        _check_model(model, symbols, steps)


def _check_model(model: EntropyModel, symbols: Tensor, steps) -> None:
    samples = as_samples(symbols)
    limits = dict(scale=MAX_SCALE, centre=MAX_CENTRE, rectified=1)
    model = model._replace(
        scale=model.scale - scale_class(steps.base)[:, None])
    for name, x in model._asdict().items():
        wanted = (len(samples),
                  1 if name == 'rectified' else samples.size(2))
        if tuple(x.shape) != wanted or x.abs().max() > limits[name]:
            raise ValueError(
                f'model.{name} must have shape {wanted} and lie within '
                f'+-{limits[name]}: use what fit_entropy_model returns')


def _representable(quantized: QuantizedLevel) -> bool:
    """Whether no step and no value can leave the range of float32."""
    symbols, steps = quantized.symbols, quantized.steps
    bound = steps.size(symbols).max().double()
    bound = bound * symbols.abs().max().clamp_min(1)
    return bool(bound <= _MAX_FLOAT)


def _body(levels: Sequence[QuantizedLevel]) -> bytes:
    head = bytearray(struct.pack('<BB', VERSION, len(levels)))
    writer = SymbolWriter()
    for level in levels:
        steps, dims = level.steps, level.symbols.shape[1:]
        form = len(dims) | DTYPES.index(level.dtype) << 2
        for bit, name in enumerate(EXPONENTS, 4):
            form |= (getattr(steps, name) is not None) << bit
        head.append(form)
        for n in dims:
            head += varint(n)
        head += struct.pack('<f', float(steps.base))
        write_level(writer, level)
    return bytes(head) + writer.finish()


def encode_bodies(levels: Sequence[QuantizedLevel]) -> List[bytes]:
    """Bodies of the streams of every image of a batch: without magic number
    and checksum, for a file that has its own.

    Args:
        levels (Sequence[QuantizedLevel]): Every level that is sent, 1 to 255,
            with the same batch size.

    Returns:
        list[bytes]: One body an image; :func:`decode_body` returns the same
        levels.

    Raises:
        TypeError: The features had a dtype that the format does not know.
        ValueError: Symbols or steps that the format cannot hold.
    """
    levels = [x.cpu() for x in levels]
    sizes = {len(x.symbols) for x in levels}
    if not 0 < len(levels) < 256 or len(sizes) != 1:
        raise ValueError('expected 1 to 255 levels of the same batch size, '
                         f'but got {len(levels)} of sizes {sorted(sizes)}')
    for x in levels:
        _check(x)
    return [
        _body([x.of_image(i) for x in levels]) for i in range(sizes.pop())
    ]


# ---------------------------------------------------------------------- read
class Cursor:
    """Reads a header, and says where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise BitstreamError('truncated: the header is incomplete')
        self.at += n
        return self.data[self.at - n:self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 35:
                raise BitstreamError('corrupted: impossible number in the '
                                     'header')


def read_headers(body: bytes, max_elements: int) -> List[dict]:
    """What :func:`mmfeatjnd.coding.read_header` returns, of a body."""
    return _read_headers(body, max_elements)[0]


def _read_headers(body: bytes,
                  max_elements: int) -> Tuple[List[dict], bytes]:
    """Headers and payload."""
    cursor = Cursor(body)
    version, count = cursor.take(2)
    if version != VERSION:
        raise BitstreamError(f'stream version {version}, but this mmfeatjnd '
                             f'reads version {VERSION}')
    levels = [_read_level(cursor) for _ in range(count)]
    check_size(sum(math.prod(x['shape']) for x in levels), max_elements)
    return levels, body[cursor.at:]


def check_size(elements: int, max_elements: int) -> None:
    """Raise a :class:`BitstreamError` of more elements than are read."""
    if elements > max_elements:
        raise BitstreamError(
            f'oversized: it claims {elements} elements, but at most '
            f'{max_elements} are read. Raise max_elements if you trust it')


def _read_level(cursor: Cursor) -> dict:
    form, = cursor.take(1)
    ndim, dtype = form & 3, form >> 2 & 3
    if not ndim or dtype >= len(DTYPES) or form >> 7:
        raise BitstreamError('corrupted: unknown form of a level')
    shape = tuple(cursor.varint() for _ in range(ndim))
    if not all(shape):
        raise BitstreamError('corrupted: an empty level')
    base, = struct.unpack('<f', cursor.take(4))
    if not 0 < base < math.inf:
        raise BitstreamError('corrupted: impossible step')
    return dict(
        shape=shape,
        dtype=DTYPES[dtype],
        base=base,
        exponents=[n for i, n in enumerate(EXPONENTS, 4) if form >> i & 1])


def decode_body(body: bytes,
                max_elements: int = MAX_ELEMENTS) -> List[QuantizedLevel]:
    """Quantized features of one image from a body.

    Args:
        body (bytes): One of :func:`encode_bodies`, which whoever stored it
            has checked.
        max_elements (int): See
            :func:`mmfeatjnd.coding.decode_image`. Defaults to 2^25.

    Returns:
        list[QuantizedLevel]: See :func:`mmfeatjnd.coding.decode_image`.

    Raises:
        BitstreamError: Truncated, corrupted or oversized.
    """
    headers, payload = _read_headers(body, max_elements)
    reader, levels = SymbolReader(payload), []
    for x in headers:
        level = read_level(reader, x['shape'], x['base'], x['exponents'])
        levels.append(level._replace(dtype=x['dtype']))
        if not _representable(levels[-1]):
            raise BitstreamError('corrupted payload: impossible steps')
    if not reader.exhausted():
        raise BitstreamError('corrupted payload: bytes are left over')
    return levels
