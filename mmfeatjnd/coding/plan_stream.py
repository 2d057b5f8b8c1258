"""The stream of one image whose receiver has the plan.

Layout::

    version and flags u8 | height varint | width varint | step varint
    payload, see mmfeatjnd.coding.payload
    CRC-16 of the plan's digest and everything before, u16

Nothing else is sent: the shapes of the features follow from the size of the
image, and models and transforms from the plan. Seven to nine bytes beside the
symbols. Another plan looks like a damaged stream: the checksum does not match.
"""
import binascii
import struct
from typing import NamedTuple, Sequence, Tuple

from mmfeatjnd.functional import EntropyModel, QuantizedLevel
from .body import MAX_ELEMENTS, Cursor, check_size, varint
from .entropy_coder import BitstreamError, SymbolReader, SymbolWriter
from .payload import read_level, write_level

VERSION = 1
_SUM = struct.Struct('<H')


class PlanHeader(NamedTuple):
    """What stands before the symbols.

    Attributes:
        size (tuple[int, int]): Height and width of the image, pixels.
        step (int): Index of the step on its grid.
        adapted (bool): Steps vary over blocks.
        start (int): Where the payload begins.
    """
    size: Tuple[int, int]
    step: int
    adapted: bool
    start: int


def _checksum(data: bytes, digest: bytes) -> int:
    return binascii.crc_hqx(data, binascii.crc_hqx(digest, 0))


def encode_planned(parts: Sequence[QuantizedLevel], size: Tuple[int, int],
                   step: int, digest: bytes) -> bytes:
    """The stream of one image.

    Args:
        parts (Sequence[QuantizedLevel]): The components of every part of
            every level, for a batch of 1, with the plan's models.
        size (tuple[int, int]): Height and width of the image, pixels.
        step (int): Index of the step that all bases have.
        digest (bytes): Of the plan.

    Returns:
        bytes: :func:`decode_planned` returns the same parts.

    Example:
        >>> import torch
        >>> from mmfeatjnd.functional import Steps
        >>> model = EntropyModel(*torch.zeros(3, 1, 8, dtype=torch.int32))
        >>> model = model._replace(rectified=model.rectified[:, :1])
        >>> part = QuantizedLevel(torch.ones(1, 8, 2, 3),
        ...                       Steps(torch.tensor([0.5])), model=model)
        >>> data = encode_planned([part], (32, 48), -28, b'a plan')
        >>> read_plan_header(data, b'a plan').size
        (32, 48)
    """
    parts = [x.cpu() for x in parts]
    adapted = any(x.steps.token is not None for x in parts)
    head = bytearray([VERSION << 1 | adapted])
    head += varint(size[0]) + varint(size[1])
    head += varint(2 * step if step >= 0 else -2 * step - 1)
    writer = SymbolWriter()
    for x in parts:
        write_level(writer, x, known=True)
    data = bytes(head) + writer.finish()
    return data + _SUM.pack(_checksum(data, digest))


def read_plan_header(data: bytes, digest: bytes) -> PlanHeader:
    """Header of a stream that is checked; nothing is decoded.

    Args:
        data (bytes): What :func:`encode_planned` returned.
        digest (bytes): Of the plan.

    Returns:
        PlanHeader: What it says.

    Raises:
        BitstreamError: Foreign, truncated, corrupted or of another plan.

    Example:
        >>> read_plan_header(b'\\x02\\x20\\x30\\x37', b'a plan')
        Traceback (most recent call last):
        mmfeatjnd.coding.entropy_coder.BitstreamError: truncated: the header \
is incomplete
    """
    cursor = Cursor(data[:-_SUM.size])
    first, = cursor.take(1)
    if first >> 1 != VERSION:
        raise BitstreamError(
            f'stream version {first >> 1}, but this mmfeatjnd reads version '
            f'{VERSION} of streams with a plan')
    size = cursor.varint(), cursor.varint()
    step = cursor.varint()
    if data[-_SUM.size:] != _SUM.pack(
            _checksum(data[:-_SUM.size], digest)):
        raise BitstreamError('the checksum does not match: it is corrupted, '
                             'or was made with another plan')
    if not all(size):
        raise BitstreamError('corrupted: an image without pixels')
    step = step // 2 if step % 2 == 0 else -(step + 1) // 2
    return PlanHeader(size, step, bool(first & 1), cursor.at)


def decode_planned(data: bytes,
                   digest: bytes,
                   shapes: Sequence[Tuple[int, ...]],
                   models: Sequence[EntropyModel],
                   base: float,
                   max_elements: int = MAX_ELEMENTS) -> list:
    """The components of one image.

    Args:
        data (bytes): What :func:`encode_planned` returned.
        digest (bytes): Of the plan.
        shapes (Sequence[tuple[int, ...]]): Of every part (K, h, w).
        models (Sequence[EntropyModel]): Of every part, the plan's.
        base (float): The step that the header's index means.
        max_elements (int): Refuse images with more. Defaults to 2^25.

    Returns:
        list[QuantizedLevel]: The parts, bit for bit, on the CPU.

    Raises:
        BitstreamError: See :func:`read_plan_header`; or oversized.

    Example:
        >>> import torch
        >>> from mmfeatjnd.functional import Steps
        >>> model = EntropyModel(*torch.zeros(3, 1, 8, dtype=torch.int32))
        >>> model = model._replace(rectified=model.rectified[:, :1])
        >>> part = QuantizedLevel(torch.ones(1, 8, 2, 3),
        ...                       Steps(torch.tensor([0.5])), model=model)
        >>> data = encode_planned([part], (32, 48), -28, b'a plan')
        >>> decoded, = decode_planned(
        ...     data, b'a plan', [(8, 2, 3)], [model], 0.5)
        >>> torch.equal(decoded.symbols, part.symbols)
        True
    """
    header = read_plan_header(data, digest)
    check_size(sum(a * b * c for a, b, c in shapes), max_elements)
    reader = SymbolReader(data[header.start:-_SUM.size])
    exponents = ['token'] * header.adapted
    parts = [
        read_level(reader, shape, base, exponents, model)
        for shape, model in zip(shapes, models)
    ]
    if not reader.exhausted():
        raise BitstreamError('corrupted payload: bytes are left over')
    return parts
