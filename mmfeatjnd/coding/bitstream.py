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
exponents, and the levels (see :mod:`mmfeatjnd.coding.payload`), all by one
range coder. The steps travel with the features: a decoder needs neither
the estimator nor the policy.
"""
import math
import struct
from typing import List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import Steps, dequantize, saturate
from mmfeatjnd.functional.quantize import MAX_EXPONENT, MAX_LEVEL
from .entropy_coder import BitstreamError, check_seal, seal
from .payload import (
    EXPONENTS,
    decode_payload,
    encode_payload,
    exponent_shape,
)

MAGIC = b'FJND'
VERSION = 1
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: A file that claims more elements than this is refused.
MAX_ELEMENTS = 1 << 26
_MAX_FLOAT = torch.finfo(torch.float32).max


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
        value = dequantize(
            self.level,
            self.steps.size(self.level),
            offset=self.steps.origin(self.level))
        return saturate(value, self.dtype)


# -------------------------------------------------------------------- stream
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _check(item: QuantizedLevel) -> None:
    """Raise unless a decoder can read what would be written."""
    level, steps, dtype = item
    shape = tuple(level.shape)
    if dtype not in DTYPES:
        raise TypeError(f'features must be one of {DTYPES}, but got {dtype}')
    if level.dim() not in (2, 3, 4) or not level.numel():
        raise ValueError('levels must be (B, C, H, W), (B, N, C) or (B, C) '
                         f'and not empty, but got {shape}')
    if not ((level.abs() <= MAX_LEVEL) & (level == level.round())).all():
        raise ValueError(f'levels must be integers within +-{MAX_LEVEL}: '
                         'quantize the features first')
    wanted = {n: (len(level), *exponent_shape(n, shape[1:]))
              for n in EXPONENTS}
    wanted.update(base=shape[:1], offset=shape[:1])
    for name, x in steps._asdict().items():
        if x is None:
            continue
        if tuple(x.shape) != wanted[name]:
            raise ValueError(f'steps.{name} must have shape {wanted[name]} '
                             f'for levels {shape}, but has {tuple(x.shape)}')
        if name in EXPONENTS and not ((x.abs() <= MAX_EXPONENT)
                                      & (x == x.round())).all():
            raise ValueError(f'steps.{name} must be integers within '
                             f'+-{MAX_EXPONENT}')
    if not (steps.base > 0).all() or not _representable(item):
        raise ValueError('steps must be positive, and levels times steps '
                         'within the range of float32')


def _representable(item: QuantizedLevel) -> bool:
    """Whether no step and no value can leave the range of float32."""
    bound = item.steps.size(item.level).max().double()
    bound = bound * item.level.abs().max().clamp_min(1)
    if item.steps.offset is not None:
        bound = bound + item.steps.offset.abs().max()
    return bool(bound <= _MAX_FLOAT)


def _encode(levels: Sequence[QuantizedLevel]) -> bytes:
    head = bytearray(MAGIC)
    head += struct.pack('<BB', VERSION, len(levels))
    payloads = []
    for level, steps, dtype in levels:
        dims = level.shape[1:]
        form = len(dims) | DTYPES.index(dtype) << 2
        for bit, name in enumerate((*EXPONENTS, 'offset'), 4):
            form |= (getattr(steps, name) is not None) << bit
        head.append(form)
        for n in dims:
            head += _varint(n)
        head += struct.pack('<f', float(steps.base))
        if steps.offset is not None:
            head += struct.pack('<f', float(steps.offset))
        payloads.append(encode_payload(level, steps))
        head += _varint(len(payloads[-1]))
    return seal(bytes(head) + b''.join(payloads))


def encode_image(levels: Sequence[QuantizedLevel]) -> bytes:
    """Write the quantized features of one image.

    Args:
        levels (Sequence[QuantizedLevel]): Every level that is sent, 1 to 255.

    Returns:
        bytes: The stream; :func:`decode_image` returns the same levels.

    Raises:
        TypeError: The features had a dtype that the format does not know.
        ValueError: Levels or steps that the format cannot hold.
    """
    data = encode_batch(levels)
    if len(data) != 1:
        raise ValueError(f'expected one image, but got {len(data)}: use '
                         'encode_batch')
    return data[0]


def encode_batch(
        levels: Sequence[Tuple[Tensor, Steps, torch.dtype]]) -> List[bytes]:
    """:func:`encode_image` for every image of a batch.

    The bytes of an image do not depend on the others.

    Args:
        levels (Sequence[tuple]): Levels, steps and dtype of every level that
            is sent, with the same batch size.

    Returns:
        list[bytes]: One stream an image.

    Raises:
        TypeError, ValueError: See :func:`encode_image`.
    """
    levels = [_on_cpu(QuantizedLevel(*x)) for x in levels]
    sizes = {len(x.level) for x in levels}
    if not 0 < len(levels) < 256 or len(sizes) != 1:
        raise ValueError('expected 1 to 255 levels of the same batch size, '
                         f'but got {len(levels)} of sizes {sorted(sizes)}')
    for x in levels:
        _check(x)
    return [
        _encode([
            QuantizedLevel(x.level[i:i + 1],
                           Steps(*(None if e is None else e[i:i + 1]
                                   for e in x.steps)), x.dtype)
            for x in levels
        ]) for i in range(sizes.pop())
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
            2^26.

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
    check_seal(data)
    return levels


def _read_header(cursor: _Cursor) -> dict:
    form, = cursor.take(1)
    ndim, dtype = form & 3, form >> 2 & 3
    if not ndim or dtype >= len(DTYPES):
        raise BitstreamError('corrupted: unknown form of a level')
    shape = tuple(cursor.varint() for _ in range(ndim))
    if not all(shape):
        raise BitstreamError('corrupted: an empty level')
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
        exponents=[n for i, n in enumerate(EXPONENTS, 4) if form >> i & 1],
        bytes=cursor.varint())


def decode_image(data: bytes,
                 max_elements: int = MAX_ELEMENTS) -> List[QuantizedLevel]:
    """Read the quantized features of one image.

    Args:
        data (bytes): What :func:`encode_image` returned.
        max_elements (int): Refuse streams with more elements. Defaults to
            2^26.

    Returns:
        list[QuantizedLevel]: The levels, bit for bit, on the CPU.

    Raises:
        BitstreamError: See :func:`describe`.
    """
    levels = []
    for x in describe(data, max_elements):
        payload = data[x['start']:x['start'] + x['bytes']]
        level, steps = decode_payload(payload, x['shape'], x['exponents'])
        steps = steps._replace(
            base=torch.tensor([x['base']]),
            offset=None if x['offset'] is None else torch.tensor(
                [x['offset']]))
        levels.append(QuantizedLevel(level, steps, x['dtype']))
        if not _representable(levels[-1]):
            raise BitstreamError('corrupted payload: impossible steps')
    return levels
