"""The stream of one image's quantized features.

Layout, all numbers little-endian::

    'FJND' | body, see mmfeatjnd.coding.body | CRC-32 of everything before, u32
"""
from typing import List, Sequence

from mmfeatjnd.functional import QuantizedLevel
from .body import MAX_ELEMENTS, decode_body, encode_bodies, read_headers
from .entropy_coder import SEAL_BYTES, BitstreamError, check_seal, seal

MAGIC = b'FJND'


def encode_batch(levels: Sequence[QuantizedLevel]) -> List[bytes]:
    """Streams of the quantized features of every image of a batch.

    The bytes of an image do not depend on the others.

    Args:
        levels (Sequence[QuantizedLevel]): Every level that is sent, 1 to 255,
            with the same batch size; see :func:`encode_image`.

    Returns:
        list[bytes]: One stream an image.

    Raises:
        TypeError, ValueError: See :func:`encode_image`.

    Example:
        >>> import torch
        >>> from mmfeatjnd.functional import QuantizedLevel, Steps
        >>> level = QuantizedLevel(torch.ones(2, 8, 4, 4),
        ...                        Steps(torch.ones(2)))
        >>> first, second = encode_batch([level])
        >>> first == second
        True
    """
    return [seal(MAGIC + body) for body in encode_bodies(levels)]


def encode_image(levels: Sequence[QuantizedLevel]) -> bytes:
    """Stream of the quantized features of one image.

    Args:
        levels (Sequence[QuantizedLevel]): Every level that is sent, 1 to 255,
            for a batch of 1. Symbols are coded with the model that they have;
            if there is none, it is fitted to them.

    Returns:
        bytes: The stream; :func:`decode_image` returns the same levels.

    Raises:
        TypeError: The features had a dtype that the format does not know.
        ValueError: Symbols or steps that the format cannot hold.

    Example:
        >>> import torch
        >>> from mmfeatjnd.functional import Allocation, Steps, quantize
        >>> feature = torch.randn(1, 8, 4, 4)
        >>> allocation = Allocation(Steps(torch.tensor([0.5])))
        >>> quantized, _ = quantize(feature, allocation)
        >>> decoded, = decode_image(encode_image([quantized]))
        >>> torch.equal(decoded.symbols, quantized.symbols)
        True
    """
    data = encode_batch(levels)
    if len(data) != 1:
        raise ValueError(f'expected one image, but got {len(data)}: use '
                         'encode_batch')
    return data[0]


def read_header(data: bytes, max_elements: int = MAX_ELEMENTS) -> List[dict]:
    """Header of a stream that is checked; nothing is decoded.

    Args:
        data (bytes): What :func:`encode_image` returned.
        max_elements (int): Refuse streams with more elements. Defaults to
            2^25.

    Returns:
        list[dict]: For every level its ``shape`` (without the batch),
        ``dtype``, ``base`` step and ``exponents`` (names).

    Raises:
        BitstreamError: Foreign, truncated, corrupted or oversized.

    Example:
        >>> import torch
        >>> from mmfeatjnd.functional import QuantizedLevel, Steps
        >>> level = QuantizedLevel(torch.ones(1, 8, 4, 4),
        ...                        Steps(torch.ones(1)))
        >>> header, = read_header(encode_image([level]))
        >>> header['shape'], header['base']
        ((8, 4, 4), 1.0)
    """
    return read_headers(_checked(data), max_elements)


def _checked(data: bytes) -> bytes:
    """The body of a stream."""
    if data[:len(MAGIC)] != MAGIC:
        raise BitstreamError('not a feature stream: it does not begin with '
                             f'{MAGIC.decode()}')
    check_seal(data)
    return data[len(MAGIC):-SEAL_BYTES]


def decode_image(data: bytes,
                 max_elements: int = MAX_ELEMENTS) -> List[QuantizedLevel]:
    """Quantized features of one image from its stream.

    Args:
        data (bytes): What :func:`encode_image` returned.
        max_elements (int): Refuse streams with more elements. Defaults to
            2^25.

    Returns:
        list[QuantizedLevel]: The levels, bit for bit, on the CPU, with the
        model that they were coded with.

    Raises:
        BitstreamError: See :func:`read_header`.

    Example:
        >>> import torch
        >>> from mmfeatjnd.functional import QuantizedLevel, Steps, dequantize
        >>> level = QuantizedLevel(torch.ones(1, 8, 4, 4),
        ...                        Steps(torch.tensor([0.5])))
        >>> decoded, = decode_image(encode_image([level]))
        >>> torch.equal(dequantize(decoded), torch.full((1, 8, 4, 4), 0.5))
        True
    """
    return decode_body(_checked(data), max_elements)
