r"""Quantization of images, guided by the JND of their pixels.

A transform quantizer like JPEG's: an orthonormal DCT of blocks, then
:func:`mmfeatjnd.functional.quantize`. In the layout of features a block is a
*token* and a frequency is a channel, so a step for each block is a step for
each token, and all that quantizes, models and codes features serves images.

As the transform is orthonormal, errors of at most half a step in every
coefficient are an RMS error of at most half a step in the pixels of a block:
with steps of twice the JND (Jin et al., arXiv 2102.08168, section III-C) the
JND. What the transform and the blocks are is ours. Images are pixels in [0,
255], (B, C, H, W).
"""
import math
from functools import lru_cache
from typing import List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .steps import Steps, make_steps
from .symbols import MAX_SYMBOL, from_symbols, to_symbols

MAX_BLOCK = 64
#: What is subtracted before and added after the transform, as in JPEG.
CENTER = 128
# Values that lie in the middle between two grey levels are common (a constant
# block); all of them must go up, whatever the last bits of the arithmetic.
_NUDGE = 2.0**-20


# ----------------------------------------------------------------- transform
@lru_cache(maxsize=None)
def _basis(n: int) -> Tensor:
    """The orthonormal DCT-II, (frequency, position), float64."""
    k = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * (k + 0.5) * k[:, None])
    basis *= math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis


@lru_cache(maxsize=None)
def _zigzag(block: int) -> List[int]:
    """Flat indices of the frequencies (u, v) as JPEG orders them."""

    def key(i: int):
        u, v = divmod(i, block)
        return u + v, u if (u + v) % 2 else v

    return sorted(range(block * block), key=key)


def check_block(block: int) -> None:
    """Raise unless this is the edge of a block.

    Args:
        block (int): Edge, in pixels.

    Raises:
        ValueError: No integer from 1 to 64.

    Example:
        >>> check_block(8)
    """
    if not isinstance(block, int) or not 1 <= block <= MAX_BLOCK:
        raise ValueError(f'block must be an integer from 1 to {MAX_BLOCK}, '
                         f'but got {block!r}')


def _check_images(images: Tensor, name: str = 'images') -> None:
    if not isinstance(images, Tensor) or images.dim() != 4:
        got = (f'shape {tuple(images.shape)}'
               if isinstance(images, Tensor) else type(images).__name__)
        raise ValueError(f'{name} must be a tensor (B, C, H, W), but got '
                         f'{got}. Images of several sizes go one by one')
    if not images.numel():
        raise ValueError(f'{name} must not be empty, but got shape '
                         f'{tuple(images.shape)}')


def check_pixels(images: Tensor) -> None:
    """Raise unless these are images of pixels.

    Args:
        images (Tensor): Any tensor.

    Raises:
        ValueError: Not (B, C, H, W), empty, or not within [0, 255].

    Example:
        >>> check_pixels(torch.full((1, 3, 8, 8), 255.))
    """
    _check_images(images)
    low, high = images.min().item(), images.max().item()
    if not 0 <= low <= high <= 255:  # also where they are NaN
        raise ValueError(f'images must be pixels in [0, 255], but are within '
                         f'[{low:g}, {high:g}]: undo the normalization, and '
                         'clip')


def block_dct(images: Tensor, block: int = 8, colour: bool = True) -> Tensor:
    """Orthonormal DCT of square blocks, and over the colours.

    The DCT of three colours is a luminance (R + G + B) / sqrt(3) and two
    differences, R - B and R - 2 G + B.

    Args:
        images (Tensor): (B, C, H, W), floating. They are repeated beyond the
            bottom and the right edge to whole blocks.
        block (int): b, the edge of a block, 1 to 64. Defaults to 8; 1 leaves
            the pixels as they are.
        colour (bool): Transform the colours, too. Defaults to True.

    Returns:
        Tensor: (B, C * b * b, ceil(H / b), ceil(W / b)), the dtype of the
        images. Channels: the colours, and of each the frequencies in JPEG's
        zigzag.

    Raises:
        ValueError: No images, or no edge of a block.

    Example:
        >>> block_dct(torch.zeros(2, 3, 32, 44)).shape
        torch.Size([2, 192, 4, 6])
    """
    _check_images(images)
    check_block(block)
    missing = [-n % block for n in images.shape[-2:]]
    if any(missing):
        images = F.pad(
            images, (0, missing[1], 0, missing[0]), mode='replicate')
    batch, channels, height, width = images.shape
    x = images.view(batch, channels, height // block, block,
                    width // block, block)
    basis = _basis(block).to(x)
    x = torch.einsum('ui,vj,bchiwj->bcuvhw', basis, basis, x)
    if colour:
        x = torch.einsum('dc,bcuvhw->bduvhw', _basis(channels).to(x), x)
    x = x.reshape(batch, channels, block * block, *x.shape[-2:])
    return x[:, :, _zigzag(block)].flatten(1, 2)


def inverse_block_dct(coefficients: Tensor,
                      size: Optional[Sequence[int]] = None,
                      block: int = 8,
                      colour: bool = True) -> Tensor:
    """Undo :func:`block_dct`.

    Args:
        coefficients (Tensor): (B, C * b * b, h, w), floating.
        size (Sequence[int], optional): H, W of the images. Defaults to None:
            whole blocks.
        block (int): b, the edge of a block. Defaults to 8.
        colour (bool): See :func:`block_dct`. Defaults to True.

    Returns:
        Tensor: (B, C, H, W), the dtype of the coefficients.

    Raises:
        ValueError: No coefficients of such blocks.

    Example:
        >>> images = torch.rand(2, 3, 32, 44)
        >>> back = inverse_block_dct(block_dct(images), (32, 44))
        >>> torch.allclose(back, images, atol=1e-5)
        True
    """
    _check_images(coefficients, 'coefficients')
    check_block(block)
    area = block * block
    batch, n, h, w = coefficients.shape
    if n % area:
        raise ValueError(f'coefficients have {n} channels, which is no '
                         f'multiple of the {area} frequencies of blocks of '
                         f'{block}')
    x = coefficients.new_empty(batch, n // area, area, h, w)
    x[:, :, _zigzag(block)] = coefficients.view(x.shape)
    x = x.view(batch, -1, block, block, h, w)
    if colour:
        x = torch.einsum('dc,bduvhw->bcuvhw', _basis(x.size(1)).to(x), x)
    basis = _basis(block).to(x)
    x = torch.einsum('ui,vj,bcuvhw->bchiwj', basis, basis, x)
    x = x.reshape(batch, -1, h * block, w * block)
    return x if size is None else x[:, :, :size[0], :size[1]]


# --------------------------------------------------------------------- steps
@torch.no_grad()  # with a gradient, steps would not be on their grid
def block_steps(jnd: Tensor, block: int = 8, finest: float = 1.0) -> Steps:
    r"""One step for each block: twice its mean JND (section III-C).

    Args:
        jnd (Tensor): e, (B, C, H, W), in pixels: of an image normalized by a
            standard deviation, times that. Its sign does not matter.
        block (int): Edge of a block. Defaults to 8.
        finest (float): Least step, in grey levels (up to the grid of half
            octaves). Defaults to 1: images have 8 bits.

    Returns:
        Steps: One base an image, and half octaves for its blocks, ``token``,
        (B, 1, ceil(H / b), ceil(W / b)).

    Raises:
        ValueError: A JND that is not finite or not (B, C, H, W), no edge of a
            block, or a ``finest`` that is not positive.

    Example:
        >>> steps = block_steps(torch.full((2, 3, 32, 44), -3.))
        >>> steps.token.shape
        torch.Size([2, 1, 4, 6])
        >>> steps.base  # in grey levels
        tensor([6., 6.])
    """
    _check_images(jnd, 'jnd')
    check_block(block)
    if not 0 < finest < math.inf:
        raise ValueError(f'finest must be positive, but got {finest}')
    if not torch.isfinite(jnd).all():
        raise ValueError('jnd must be finite')
    # of blocks that reach over the edge, the part that is image
    mean = F.avg_pool2d(jnd.abs().float().mean(1, keepdim=True), block,
                        ceil_mode=True, count_include_pad=False)
    return make_steps((2 * mean).clamp_min(finest).log(), 'token')


def check_steps(steps: Steps, shape: Sequence[int]) -> None:
    """Raise unless these are steps of images.

    Args:
        steps (Steps): Any steps.
        shape (Sequence[int]): Shape of the coefficients of the images' blocks,
            (B, ..., h, w).

    Raises:
        ValueError: Steps that differ by channels or elements, have
            another shape, or are not positive and finite.

    Example:
        >>> check_steps(Steps(torch.tensor([4., 4.])), (2, 192, 4, 6))
    """
    batch, *_, h, w = shape
    others = [n for n in ('channel', 'element')
              if getattr(steps, n) is not None]
    if others:
        raise ValueError('steps of images have a base and tokens, but also '
                         f'got {others}')
    wanted = dict(base=(batch, ), token=(batch, 1, h, w))
    for name, expected in wanted.items():
        x = getattr(steps, name)
        if x is not None and tuple(x.shape) != expected:
            raise ValueError(
                f'steps.{name} must have shape {expected}, but has '
                f'{tuple(x.shape)}: make them for these images and blocks')
    if not (torch.isfinite(steps.base) & (steps.base > 0)).all():
        raise ValueError('steps must be positive and finite, but a base is '
                         'not')


# ----------------------------------------------------------------- quantizer
@torch.no_grad()
def quantize_pixels(images: Tensor,
                    steps: Steps,
                    block: int = 8,
                    colour: bool = True,
                    rounding: float = 0.5) -> Tensor:
    """The symbols of images' coefficients; see :func:`restore_pixels`.

    Args:
        images (Tensor): (B, C, H, W), pixels in [0, 255], of any dtype.
        steps (Steps): For instance of :func:`block_steps`, with the same
            ``block``; without ``token``, one step an image.
        block (int): Edge of a block; 1: a plain quantizer of pixels.
            Defaults to 8.
        colour (bool): Transform the colours, too. Defaults to True.
        rounding (float): See :func:`to_symbols`; less than 0.5 zeroes more
            coefficients, with errors of more than half a step. Defaults to
            0.5.

    Returns:
        Tensor: (B, C * b * b, ceil(H / b), ceil(W / b)), float32 with integer
        values.

    Raises:
        ValueError: No images in [0, 255], steps that do not fit or are not
            positive, or so fine that a symbol exceeds 16 bits.

    Example:
        >>> images = torch.full((2, 3, 32, 44), 100.)
        >>> quantize_pixels(images, Steps(torch.tensor([4., 4.]))).shape
        torch.Size([2, 192, 4, 6])
    """
    check_pixels(images)
    # float64, then rounded: symbols do not depend on batch and device
    x = block_dct(images.double() - CENTER, block, colour).float()
    check_steps(steps, x.shape)
    symbols = to_symbols(x, steps.size(x), rounding)
    if symbols.abs().max() >= MAX_SYMBOL:
        raise ValueError(f'steps are too fine: a symbol exceeds {MAX_SYMBOL}')
    return symbols


@torch.no_grad()
def restore_pixels(symbols: Tensor,
                   steps: Steps,
                   size: Optional[Sequence[int]] = None,
                   block: int = 8,
                   colour: bool = True) -> Tensor:
    """The images that symbols stand for.

    Rounded and clipped to 8 bits, as every receiver of an image gets it.

    Args:
        symbols (Tensor): What :func:`quantize_pixels` returned,
            (B, C * b * b, h, w).
        steps (Steps): Its steps.
        size (Sequence[int], optional): H, W of the images. Defaults to None:
            whole blocks.
        block (int): Edge of a block. Defaults to 8.
        colour (bool): See :func:`quantize_pixels`. Defaults to True.

    Returns:
        Tensor: (B, C, H, W), uint8.

    Raises:
        ValueError: Symbols and steps that do not fit.

    Example:
        >>> images = torch.full((2, 3, 32, 44), 100.)
        >>> steps = Steps(torch.tensor([4., 4.]))
        >>> symbols = quantize_pixels(images, steps)
        >>> decoded = restore_pixels(symbols, steps, (32, 44))
        >>> decoded.shape, decoded.dtype
        (torch.Size([2, 3, 32, 44]), torch.uint8)
        >>> (decoded - images).abs().max() <= 2
        tensor(True)
    """
    check_steps(steps, symbols.shape)
    x = from_symbols(symbols, steps.size(symbols)).double()
    x = inverse_block_dct(x, size, block, colour) + CENTER
    return (x + (0.5 + _NUDGE)).floor().clamp(0, 255).byte()
