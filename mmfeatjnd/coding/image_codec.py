"""The bytes of quantized images.

The coefficients travel as a feature, see :mod:`mmfeatjnd.coding.body`,
with their steps. Layout, all numbers little-endian::

    'JNDI' | version u8 | form u8 (1: colours transformed) | block u8
    | rows, columns that the last blocks have beyond the image u8, u8
    | number of images u16
    the body of a feature stream
    CRC-32 of everything before, u32

The body has one level, the coefficients with their steps; or two, a
level of zeros with the steps, and the coefficients as if with one step,
whichever is shorter. The entropy model takes it that blocks are alike but for
their steps: where steps grow with what is in a block, its levels are alike,
and the model does better without the steps.

Several images in one stream are stacked like one high image: they share the
two parameters that the entropy model sends for every channel, which for a
small image outweigh its levels.
"""
import struct
from typing import List, NamedTuple, Sequence

import torch
from torch import Tensor

from mmfeatjnd.functional import QuantizedLevel, Steps
from mmfeatjnd.functional.pixels import (
    MAX_BLOCK,
    check_block,
    check_pixels,
    check_steps,
    quantize_pixels,
    restore_pixels,
)
from mmfeatjnd.functional.steps import MAX_EXPONENT
from .body import MAX_ELEMENTS, decode_body, encode_bodies
from .entropy_coder import SEAL_BYTES, BitstreamError, check_seal, seal

MAGIC = b'JNDI'
VERSION = 2
_HEAD = struct.Struct('<4sBBBBBH')


def _share_base(steps: Steps, shape: Sequence[int]) -> Steps:
    """One base for all images, and their own in the tokens' half octaves."""
    check_steps(steps, shape)
    log = steps.base.double().log2()
    mean = log.mean()
    shift = (2 * (log - mean)).round().int().view(-1, 1, 1, 1)
    token = steps.token
    if token is not None or shift.any():
        token = shift.expand(shape) if token is None else token.int() + shift
        if token.abs().max() > MAX_EXPONENT:
            raise ValueError('the steps of these images differ too much for '
                             'one stream: use together=False')
    base = mean.exp2().float().expand(len(log))
    return Steps(base, token)


def _stack(x: Tensor) -> Tensor:
    """(B, K, h, w) as one high (1, K, B * h, w)."""
    return x.transpose(0, 1).flatten(1, 2)[None]


def _unstack(x: Tensor, count: int) -> Tensor:
    return x[0].unflatten(1, (count, -1)).transpose(0, 1)


def _shortest(level: Tensor, steps: Steps) -> List[bytes]:
    plain = encode_bodies([QuantizedLevel(level, steps)])
    if steps.token is None:
        return plain
    apart = encode_bodies([
        QuantizedLevel(torch.zeros_like(level[:, :1]), steps),
        QuantizedLevel(level, Steps(steps.base))])
    return [min(x, key=len) for x in zip(plain, apart)]


def encode_images(images: Tensor,
                  steps: Steps,
                  block: int = 8,
                  colour: bool = True,
                  rounding: float = 0.5,
                  together: bool = False) -> List[bytes]:
    """Streams of quantized images.

    Args:
        images (Tensor): (B, C, H, W), pixels in [0, 255], of any dtype.
        steps (Steps): For instance of
            :func:`mmfeatjnd.functional.pixels.block_steps`, with the same
            ``block``.
        block (int): Edge of a block of the DCT; 1: a plain quantizer of
            pixels. Defaults to 8.
        colour (bool): Transform the colours, too. Defaults to True.
        rounding (float): See :func:`mmfeatjnd.functional.quantize`. Defaults
            to 0.5.
        together (bool): One stream for all images: they can only be read
            together. Their bases then lie on a grid of half octaves, so
            steps move by up to 19 %. Defaults to False.

    Returns:
        list[bytes]: One stream an image, or one; :func:`decode_images`
        returns what :func:`mmfeatjnd.functional.pixels.restore_pixels` does.

    Raises:
        ValueError: Images or steps that do not fit; see
            :func:`mmfeatjnd.functional.pixels.quantize_pixels`.

    Example:
        >>> images = torch.full((2, 3, 16, 24), 100.0)
        >>> streams = encode_images(images, Steps(torch.tensor([8.0, 8.0])))
        >>> len(streams), decode_images(streams[0]).shape
        (2, torch.Size([1, 3, 16, 24]))
    """
    check_pixels(images)
    check_block(block)
    if together:
        if len(images) > 0xffff:
            raise ValueError(f'{len(images)} images are too many for one '
                             'stream: at most 65535')
        blocks = [-(-n // block) for n in images.shape[-2:]]
        steps = _share_base(steps, (len(images), 1, *blocks))
    level = quantize_pixels(images, steps, block, colour, rounding)
    if together:
        token = None if steps.token is None else _stack(steps.token)
        level, steps = _stack(level), Steps(steps.base[:1], token)
    head = _HEAD.pack(MAGIC, VERSION, colour, block,
                      *(-n % block for n in images.shape[-2:]),
                      len(images) if together else 1)
    return [seal(head + body) for body in _shortest(level, steps)]


def decode_images(data: bytes,
                  max_elements: int = MAX_ELEMENTS) -> Tensor:
    """Images of a stream.

    Args:
        data (bytes): One stream of :func:`encode_images`.
        max_elements (int): Refuse streams with more coefficients. Defaults
            to 2^25.

    Returns:
        Tensor: (n, C, H, W), uint8: the images of the stream, on the CPU.

    Raises:
        BitstreamError: Foreign, truncated, corrupted or oversized.

    Example:
        >>> images = torch.full((1, 1, 8, 8), 100.0)
        >>> stream, = encode_images(images, Steps(torch.tensor([1.0])))
        >>> decode_images(stream).unique()
        tensor([100], dtype=torch.uint8)
    """
    if data[:4] != MAGIC:
        raise BitstreamError('not an image stream: it does not begin with '
                             f'{MAGIC.decode()}')
    if len(data) < _HEAD.size + SEAL_BYTES:
        raise BitstreamError('truncated: the header is incomplete')
    _, version, form, block, *rest, count = _HEAD.unpack(data[:_HEAD.size])
    if version != VERSION:
        raise BitstreamError(f'image stream version {version}, but this '
                             f'mmfeatjnd reads version {VERSION}')
    check_seal(data)
    levels = decode_body(data[_HEAD.size:-SEAL_BYTES], max_elements)
    if (not 0 < len(levels) < 3 or any(x.symbols.dim() != 4 for x in levels)
            or form > 1 or not 1 <= block <= MAX_BLOCK or max(rest) >= block
            or not count or levels[-1].symbols.size(1) % (block * block)
            or any(x.symbols.size(2) % count for x in levels)):
        raise BitstreamError('corrupted: impossible numbers in the header')
    steps, level = levels[0].steps, _unstack(levels[-1].symbols, count)
    token = None if steps.token is None else _unstack(steps.token, count)
    size = [n * block - r for n, r in zip(level.shape[-2:], rest)]
    try:
        return restore_pixels(level, Steps(steps.base.expand(count), token),
                              size, block, bool(form))
    except ValueError as error:
        raise BitstreamError(f'corrupted: {error}') from error


# ---------------------------------------------------------------------- JPEG
class JPEG(NamedTuple):
    """Images by way of JPEG.

    Attributes:
        images (Tensor): (B, C, H, W), uint8: what a decoder gets.
        bytes (Tensor): (B,), int64: of the files.
        header (Tensor): (B,), int64: of these, all before the coefficients.
            The same for all images of a size and quality, so a receiver
            may have them already.
    """
    images: Tensor
    bytes: Tensor
    header: Tensor


def jpeg_images(images: Tensor,
                quality: int,
                subsampling: bool = False) -> JPEG:
    """The other baseline: JPEG itself, by OpenCV.

    Its Huffman tables are the fixed ones of the standard. Tables of each
    image's own would save bytes, but are in the header, and a receiver would
    not have them.

    Args:
        images (Tensor): (B, C, H, W) with 1 or 3 (RGB) channels, pixels in
            [0, 255]; rounded to 8 bits.
        quality (int): 1 to 100.
        subsampling (bool): Halve the resolution of the colours (4:2:0).
            Defaults to False: 4:4:4.

    Returns:
        JPEG: The images and their bytes.
    """
    import cv2
    check_pixels(images)
    if not 1 <= quality <= 100:
        raise ValueError(f'quality must be from 1 to 100, but got {quality}')
    if images.size(1) not in (1, 3):
        raise ValueError('JPEG takes 1 or 3 channels, but got '
                         f'{images.size(1)}')
    pixels = images.detach().cpu().float().add(0.5).floor().byte()
    decoded, sizes, headers = [], [], []
    factor = '420' if subsampling else '444'
    options = [
        cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 0,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        getattr(cv2, f'IMWRITE_JPEG_SAMPLING_FACTOR_{factor}')
    ]
    # OpenCV's order of the colours is BGR
    for image in pixels.flip(1).permute(0, 2, 3, 1).contiguous().numpy():
        _, file = cv2.imencode('.jpg', image, options)
        back = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)
        decoded.append(torch.from_numpy(back).view(image.shape).flip(2))
        sizes.append(len(file))
        headers.append(_scan(file.tobytes()))
    return JPEG(torch.stack(decoded).permute(0, 3, 1, 2).contiguous(),
                torch.tensor(sizes), torch.tensor(headers))


def _scan(data: bytes) -> int:
    """Where the coefficients of a baseline JPEG file begin."""
    at = 2  # after the start of image
    while True:
        marker = data[at + 1]
        at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
        if marker == 0xda:  # start of scan
            return at
