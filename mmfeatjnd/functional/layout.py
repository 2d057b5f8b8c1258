"""One view for maps, tokens and vectors: tokens by channels.

A feature is a map (B, C, H, W), a token sequence (B, N, C) or a vector
(B, C). A *token* is a spatial position across channels, a transformer token,
or the whole vector.
"""
import math
from typing import Sequence, Tuple

import torch
from torch import Tensor


def check_layout(feature: Tensor, where: str = 'feature') -> None:
    """Raise unless ``feature`` is a floating map, token sequence or vector.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        where (str): Named in the error. Defaults to 'feature'.

    Raises:
        TypeError: ``feature`` is no floating-point tensor.
        ValueError: It has another number of dimensions.

    Example:
        >>> check_layout(torch.zeros(2, 8))
        >>> check_layout(torch.zeros(8))
        Traceback (most recent call last):
        ValueError: feature: expected (B, C, H, W), (B, N, C) or (B, C), but \
got shape (8,)
    """
    if not isinstance(feature, Tensor) or not feature.is_floating_point():
        got = getattr(feature, 'dtype', type(feature).__name__)
        raise TypeError(f'{where}: expected a floating-point tensor, '
                        f'but got {got}')
    if feature.dim() not in (2, 3, 4):
        raise ValueError(
            f'{where}: expected (B, C, H, W), (B, N, C) or (B, C), but got '
            f'shape {tuple(feature.shape)}')


def channel_dim(feature: Tensor) -> int:
    """The channel axis: 2 for token sequences (B, N, C), else 1.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Example:
        >>> channel_dim(torch.zeros(2, 8, 4, 4))
        1
        >>> channel_dim(torch.zeros(2, 16, 8))
        2
    """
    return 2 if feature.dim() == 3 else 1


LAYOUTS = ('NCHW', 'NHWC')


def to_channels_first(feature: Tensor, layout: str) -> Tensor:
    """A map with its channels in the second axis.

    Args:
        feature (Tensor): (B, C, H, W) or (B, H, W, C); tokens and vectors
            pass.
        layout (str): 'NCHW', or 'NHWC': the map has its channels last.

    Returns:
        Tensor: (B, C, H, W); a view.

    Example:
        >>> to_channels_first(torch.zeros(1, 2, 3, 8), 'NHWC').shape
        torch.Size([1, 8, 2, 3])
    """
    if layout == 'NHWC' and feature.dim() == 4:
        return feature.permute(0, 3, 1, 2)
    return feature


def from_channels_first(feature: Tensor, layout: str) -> Tensor:
    """A map in the layout that it had before :func:`to_channels_first`.

    Args:
        feature (Tensor): (B, C, H, W); tokens and vectors pass.
        layout (str): 'NCHW' or 'NHWC'.

    Returns:
        Tensor: (B, C, H, W) or (B, H, W, C); a view.

    Example:
        >>> from_channels_first(torch.zeros(1, 8, 2, 3), 'NHWC').shape
        torch.Size([1, 2, 3, 8])
    """
    if layout == 'NHWC' and feature.dim() == 4:
        return feature.permute(0, 2, 3, 1)
    return feature


def per_image(x: Tensor, like: Tensor) -> Tensor:
    """One number an image, (B,), as (B, 1, ...): broadcastable to ``like``."""
    return x.view(-1, *[1] * (like.dim() - 1))


def mean_over_tokens(feature: Tensor) -> Tensor:
    """Mean of each channel of an image, kept broadcastable; a vector is its
    own.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Tensor: (B, C, 1, 1), (B, 1, C) or (B, C).

    Example:
        >>> mean_over_tokens(torch.tensor([[[1.0, 2.0], [3.0, 2.0]]]))
        tensor([[[2., 2.]]])
    """
    channel = channel_dim(feature)
    dims = [d for d in range(1, feature.dim()) if d != channel]
    return feature.mean(dims, keepdim=True) if dims else feature


def to_tokens(feature: Tensor) -> Tensor:
    """A feature as tokens.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Tensor: (B, T, C) with T = H * W, N or 1; a view.

    Example:
        >>> to_tokens(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 16, 8])
    """
    if feature.dim() == 4:
        return feature.flatten(2).transpose(1, 2)
    return feature if feature.dim() == 3 else feature.unsqueeze(1)


def from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """A feature in the layout that it had before :func:`to_tokens`.

    Args:
        tokens (Tensor): (B, T, C).
        like (Tensor): A tensor of the layout to return to.

    Returns:
        Tensor: ``tokens`` in the shape of ``like``.

    Example:
        >>> from_tokens(torch.zeros(2, 16, 8), torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """
    if like.dim() == 4:
        return tokens.transpose(1, 2).reshape(like.shape)
    return tokens.reshape(like.shape)


def grid_of(tokens: int) -> Tuple[int, int, int]:
    """The grid on which the tokens of a sequence lie.

    A vision transformer's are a square behind a class token, or two of them;
    others are taken for one row.

    Args:
        tokens (int): Number N of tokens.

    Returns:
        tuple[int]: Number of tokens before the grid, its height and width.

    Example:
        >>> grid_of(197), grid_of(49), grid_of(300)
        ((1, 14, 14), (0, 7, 7), (0, 1, 300))
    """
    for extra in range(3):
        side = math.isqrt(max(tokens - extra, 0))
        if side > 1 and side * side == tokens - extra:
            return extra, side, side
    return 0, 1, tokens


def to_maps(feature: Tensor) -> Tuple[Tensor, ...]:
    """A feature as a map, and what has no place on it as another.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        tuple[Tensor, ...]: (B, C, H, W), of a sequence by :func:`grid_of`, of
        a vector with one token; and the tokens before the grid as a map of
        one row, (B, C, 1, n), if there are any.

    Example:
        >>> grid, rest = to_maps(torch.zeros(2, 197, 8))
        >>> grid.shape, rest.shape
        (torch.Size([2, 8, 14, 14]), torch.Size([2, 8, 1, 1]))
    """
    if feature.dim() == 4:
        return (feature, )
    tokens = to_tokens(feature)
    extra, *size = grid_of(tokens.size(1))
    grid = tokens[:, extra:].mT.unflatten(2, size)
    return (grid, tokens[:, :extra].mT[:, :, None]) if extra else (grid, )


def from_maps(maps: Sequence[Tensor], like: Tensor) -> Tensor:
    """The reverse of :func:`to_maps`.

    Args:
        maps (Sequence[Tensor]): (B, C, H, W), and (B, C, 1, n) where there
            are tokens before the grid.
        like (Tensor): A tensor of the layout to return to.

    Returns:
        Tensor: In the shape of ``like``.

    Example:
        >>> feature = torch.randn(2, 17, 3)
        >>> torch.equal(from_maps(to_maps(feature), feature), feature)
        True
    """
    if like.dim() == 4:
        return maps[0]
    # the tokens before the grid come first
    tokens = [x.flatten(2).mT for x in reversed(maps)]
    return torch.cat(tokens, 1).reshape(like.shape)
