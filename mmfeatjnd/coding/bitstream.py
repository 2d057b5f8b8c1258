"""The bytes of one image's quantized features.

Layout, all numbers little-endian::

    'FJND' | version u8 | number of levels u8
    per level: form u8 | dims varint... | base f32 | [offset f32]
               | payload length varint
    payloads
    CRC-32 of everything before, u32

``form``: bits 0-1 the number of dims without the batch, bits 2-3 the dtype
that the features had, bits 4-7 which of token, channel, element exponents and
offset there are. A payload holds the parameters of the entropy model, the
exponents, and the levels (see :mod:`mmfeatjnd.functional.entropy`), all by
one range coder. The steps travel with the features: a decoder needs neither
the estimator nor the policy.
"""
import math
import struct
import zlib
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from mmfeatjnd.functional import (
    Steps,
    Tails,
    code_length,
    dequantize,
    fit_tails,
    from_tokens,
    probabilities,
    to_tokens,
)
from mmfeatjnd.functional.entropy import (
    DIGIT,
    DIGITS,
    PI_LEVELS,
    RATIO_RANGE,
    SIGN_LEVELS,
)
from .entropy_coder import BitReader, BitWriter

MAGIC = b'FJND'
VERSION = 1
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: A file that claims more elements than this is refused.
MAX_ELEMENTS = 1 << 28
_EXPONENTS = ('token', 'channel', 'element')


class BitstreamError(ValueError):
    """The bytes are not what :func:`encode_image` wrote."""


class QuantizedLevel(NamedTuple):
    """One level of one image.

    Attributes:
        level (Tensor): Integer values, (1, C, H, W), (1, N, C) or (1, C).
        steps (Steps): The steps, for a batch of 1.
        dtype (torch.dtype): Of the feature. Defaults to float32.
    """
    level: Tensor
    steps: Steps
    dtype: torch.dtype = torch.float32

    def dequantize(self) -> Tensor:
        """The feature that the host goes on with."""
        offset = self.steps.offset
        if offset is None:
            offset = 0.0
        else:
            offset = offset.view(-1, *[1] * (self.level.dim() - 1))
        return dequantize(
            self.level, self.steps.size(self.level),
            offset=offset).to(self.dtype)


# ------------------------------------------------------------------ symbols
def _write_symbols(writer: BitWriter, level: Tensor, steps: Steps,
                   tails: Tails) -> None:
    p = probabilities(tails, steps, level)
    values = to_tokens(level)[0].int().numpy()  # (T, C)
    alive = (tails.nonzero[0] > 0).numpy()
    values, row = values[:, alive], p.digit[0].numpy()[:, alive]
    fires = values != 0
    writer.write(fires.ravel(), p.nonzero[0].numpy()[:, alive].ravel())
    positive = np.broadcast_to(p.positive[0].numpy()[:, alive], values.shape)
    fired = values[fires]
    writer.write(fired > 0, positive[fires])
    rest = np.abs(fired) - 1
    digits = int(rest.max(initial=0)).bit_length()
    writer.write_number(digits, 4)
    table = DIGIT.numpy()[row[fires]]
    for d in range(digits):
        writer.write(rest >> d & 1, table[:, d])


def _read_symbols(reader: BitReader, like: Tensor, steps: Steps,
                  tails: Tails) -> Tensor:
    p = probabilities(tails, steps, like)
    alive = (tails.nonzero[0] > 0).numpy()
    row = p.digit[0].numpy()[:, alive]
    fires = reader.read(
        p.nonzero[0].numpy()[:, alive].ravel()).reshape(row.shape) > 0
    positive = np.broadcast_to(p.positive[0].numpy()[:, alive], row.shape)
    sign = 2 * reader.read(positive[fires]) - 1
    digits = reader.read_number(4)
    if digits > DIGITS:
        raise BitstreamError('corrupted payload: impossible magnitudes')
    table = DIGIT.numpy()[row[fires]]
    rest = np.zeros(len(sign), np.int32)
    for d in range(digits):
        rest |= reader.read(table[:, d]) << d
    values = np.zeros(row.shape, np.float32)
    values[fires] = sign * (rest + 1)
    tokens = torch.zeros(to_tokens(like).shape)
    tokens[0][:, torch.from_numpy(alive)] = torch.from_numpy(values)
    return from_tokens(tokens, like)


def _unit_steps() -> Steps:
    return Steps(torch.ones(1))


def _write_integers(writer: BitWriter, values: np.ndarray) -> None:
    """An array of small integers, (n,) or (H, W), by the same symbols:
    residuals to the median, or to the neighbour before."""
    median = int(np.clip(np.median(values), -128, 127))
    choices = [values - median, _differences(values, median)]
    levels = [
        torch.from_numpy(c.reshape(1, -1, 1).astype(np.float32))
        for c in choices
    ]
    lengths = [float(code_length(x, _unit_steps())) for x in levels]
    chosen = int(lengths[1] < lengths[0])
    tails = fit_tails(levels[chosen], _unit_steps())
    writer.write_number(median + 128, 8)
    writer.write_number(chosen, 1)
    low = RATIO_RANGE[1]
    writer.write_number(int(tails.nonzero), 6)
    if int(tails.nonzero):
        writer.write_number(int(tails.scale) + low, 6)
        writer.write_number(int(tails.positive), 5)
        _write_symbols(writer, levels[chosen], _unit_steps(), tails)


def _read_integers(reader: BitReader, shape: Tuple[int, ...]) -> np.ndarray:
    median = reader.read_number(8) - 128
    chosen = reader.read_number(1)
    nonzero = reader.read_number(6)
    residual = np.zeros(shape, np.int64)
    if nonzero:
        scale = reader.read_number(6) - RATIO_RANGE[1]
        positive = reader.read_number(5)
        if nonzero >= PI_LEVELS or positive >= SIGN_LEVELS:
            raise BitstreamError('corrupted payload: impossible parameters')
        tails = Tails(*(torch.tensor([[v]], dtype=torch.int32)
                        for v in (nonzero, scale, positive)))
        like = torch.zeros(1, residual.size, 1)
        values = _read_symbols(reader, like, _unit_steps(), tails)
        residual = values.numpy().astype(np.int64).reshape(shape)
    if not chosen:
        return residual + median
    # down the first column, then along the rows
    residual[..., 0] = _accumulate(residual[..., 0], median)
    return residual.cumsum(-1)


def _differences(values: np.ndarray, start: int) -> np.ndarray:
    out = np.diff(values, axis=-1, prepend=0)
    first = values[..., 0]
    out[..., 0] = np.diff(first, prepend=start) if first.ndim else \
        first - start
    return out


def _accumulate(first: np.ndarray, start: int) -> np.ndarray:
    return first.cumsum() + start if first.ndim else first + start


# ------------------------------------------------------------------ payloads
def _encode_level(item: QuantizedLevel) -> bytes:
    writer = BitWriter()
    tails = fit_tails(item.level, item.steps)
    for parameter in tails:
        _write_integers(writer, parameter[0].numpy())
    for name in _EXPONENTS:
        exponent = getattr(item.steps, name)
        if exponent is not None:
            values = exponent[0].int().numpy()
            _write_integers(writer, values.reshape(_flat_shape(values.shape)))
    _write_symbols(writer, item.level, item.steps, tails)
    return writer.finish()


def _flat_shape(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """Maps keep their rows, so that neighbours predict each other."""
    return (-1, shape[-1]) if len(shape) == 3 and shape[-1] > 1 else (-1, )


def _exponent_shape(name: str, dims: Sequence[int]) -> Tuple[int, ...]:
    """Of one image, from the dims of the feature without the batch."""
    if name == 'element':
        return tuple(dims)
    channel = 1 if len(dims) == 2 else 0
    keep = (lambda d: d != channel) if name == 'token' else (
        lambda d: d == channel)
    return tuple(n if keep(d) else 1 for d, n in enumerate(dims))


def _decode_level(payload: bytes, header: dict) -> QuantizedLevel:
    reader = BitReader(payload)
    dims = header['shape']
    like = torch.zeros(1, *dims)
    channels = dims[1] if len(dims) == 2 else dims[0]
    tails = Tails(*(torch.from_numpy(
        _read_integers(reader, (channels, ))).int()[None] for _ in range(3)))
    limits = (PI_LEVELS, None, SIGN_LEVELS)
    if any(x.min() < 0 or x.max() >= n for x, n in zip(tails, limits) if n):
        raise BitstreamError('corrupted payload: impossible parameters')
    parts = {}
    for name in header['exponents']:
        shape = _exponent_shape(name, dims)
        flat = np.empty(shape, np.int8).reshape(_flat_shape(shape)).shape
        values = _read_integers(reader, flat).reshape(shape)
        parts[name] = torch.from_numpy(values).int()[None]
    offset = header['offset']
    steps = Steps(
        torch.tensor([header['base']]),
        offset=None if offset is None else torch.tensor([offset]),
        **parts)
    level = _read_symbols(reader, like, steps, tails)
    if not reader.exhausted():
        raise BitstreamError('corrupted payload: bytes are left over')
    return QuantizedLevel(level, steps, header['dtype'])


# -------------------------------------------------------------------- stream
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_image(levels: Sequence[QuantizedLevel]) -> bytes:
    """Write the quantized features of one image.

    Args:
        levels (Sequence[QuantizedLevel]): Every level that is sent, at most
            255.

    Returns:
        bytes: The stream; :func:`decode_image` returns the same levels.
    """
    head = bytearray(MAGIC)
    head += struct.pack('<BB', VERSION, len(levels))
    payloads = []
    for item in levels:
        item = _on_cpu(item)
        steps, dims = item.steps, item.level.shape[1:]
        form = len(dims) | DTYPES.index(item.dtype) << 2
        for bit, name in enumerate((*_EXPONENTS, 'offset'), 4):
            form |= (getattr(steps, name) is not None) << bit
        head.append(form)
        for n in dims:
            head += _varint(n)
        head += struct.pack('<f', float(steps.base))
        if steps.offset is not None:
            head += struct.pack('<f', float(steps.offset))
        payloads.append(_encode_level(item))
        head += _varint(len(payloads[-1]))
    data = bytes(head) + b''.join(payloads)
    return data + struct.pack('<I', zlib.crc32(data))


def encode_batch(
        levels: Sequence[Tuple[Tensor, Steps, torch.dtype]]) -> List[bytes]:
    """:func:`encode_image` for every image of a batch.

    Args:
        levels (Sequence[tuple]): Levels, steps and dtype of every level that
            is sent, with the same batch size.

    Returns:
        list[bytes]: One stream an image.
    """
    levels = [_on_cpu(QuantizedLevel(*x)) for x in levels]
    return [
        encode_image([
            QuantizedLevel(x.level[i:i + 1],
                           Steps(*(None if e is None else e[i:i + 1]
                                   for e in x.steps)), x.dtype)
            for x in levels
        ]) for i in range(len(levels[0].level))
    ]


def _on_cpu(item: QuantizedLevel) -> QuantizedLevel:
    steps = Steps(*(None if x is None else x.detach().cpu()
                    for x in item.steps))
    return QuantizedLevel(item.level.detach().cpu(), steps, item.dtype)


class _Cursor:
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


def describe(data: bytes, max_elements: int = MAX_ELEMENTS) -> List[dict]:
    """Check a stream and read its header; nothing is decoded.

    Args:
        data (bytes): The stream.
        max_elements (int): Refuse streams with more elements. Defaults to
            2^28.

    Returns:
        list[dict]: For every level its ``shape`` (without the batch),
        ``dtype``, ``base`` step, ``offset``, ``exponents`` (names) and
        ``bytes`` of the payload with its ``start``.

    Raises:
        BitstreamError: Foreign, truncated, corrupted or oversized.
    """
    if data[:4] != MAGIC:
        raise BitstreamError('not a feature stream: it does not begin with '
                             f'{MAGIC.decode()}')
    cursor = _Cursor(data)
    version, count = struct.unpack('<BB', cursor.take(6)[4:])
    if version != VERSION:
        raise BitstreamError(f'stream version {version}, but this mmfeatjnd '
                             f'reads version {VERSION}')
    if len(data) < 10:
        raise BitstreamError('truncated: the header is incomplete')
    levels = [_read_header(cursor) for _ in range(count)]
    total = sum(math.prod(x['shape']) for x in levels)
    if total > max_elements:
        raise BitstreamError(
            f'oversized: it claims {total} elements, but at most '
            f'{max_elements} are read. Raise max_elements if you trust it')
    start = cursor.at
    for x in levels:
        x['start'] = start
        start += x['bytes']
    if len(data) != start + 4:
        kind = 'truncated' if len(data) < start + 4 else 'corrupted'
        raise BitstreamError(f'{kind}: {start + 4} bytes are announced, but '
                             f'there are {len(data)}')
    checksum, = struct.unpack('<I', data[-4:])
    if zlib.crc32(data[:-4]) != checksum:
        raise BitstreamError('corrupted: the checksum does not match')
    return levels


def _read_header(cursor: _Cursor) -> dict:
    form, = cursor.take(1)
    ndim, dtype = form & 3, form >> 2 & 3
    if not ndim or dtype >= len(DTYPES):
        raise BitstreamError('corrupted: unknown form of a level')
    shape = tuple(cursor.varint() for _ in range(ndim))
    base, = struct.unpack('<f', cursor.take(4))
    offset = None
    if form >> 7:
        offset, = struct.unpack('<f', cursor.take(4))
    if not 0 < base < math.inf or not math.isfinite(offset or 0.0):
        raise BitstreamError('corrupted: impossible step')
    return dict(
        shape=shape,
        dtype=DTYPES[dtype],
        base=base,
        offset=offset,
        exponents=[n for i, n in enumerate(_EXPONENTS, 4) if form >> i & 1],
        bytes=cursor.varint())


def decode_image(data: bytes,
                 max_elements: int = MAX_ELEMENTS) -> List[QuantizedLevel]:
    """Read the quantized features of one image.

    Args:
        data (bytes): What :func:`encode_image` returned.
        max_elements (int): Refuse streams with more elements. Defaults to
            2^28.

    Returns:
        list[QuantizedLevel]: The levels, bit for bit, on the CPU.

    Raises:
        BitstreamError: See :func:`describe`.
    """
    return [
        _decode_level(data[x['start']:x['start'] + x['bytes']], x)
        for x in describe(data, max_elements)
    ]
