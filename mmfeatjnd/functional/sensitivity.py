r"""How sensitive the task is to noise on a token, and what noise it tolerates.

Noise on a token t that is white over the channels in units of their standard
deviation :math:`\sigma_c` and s of these strong costs, by the Fisher
information :math:`F = \mathrm{E}[g^2]` of the task at the split,

.. math:: \mathrm{E}[\mathrm{KL}] \approx \tfrac12 w_t s^2, \quad
    w_t = \sum_c \sigma_c^2 F_{ct}

nats, and noise on independent tokens the sum. So :math:`w_t` is the
*sensitivity* of the token, and its JND at a tolerance of :math:`\epsilon` nats
:math:`s_t = \sqrt{2 \epsilon / w_t}`. Ours.
"""
import math
from typing import Union

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import channel_dim, to_tokens

#: Of a uniform distribution in (-1, 1): 1 over its standard deviation.
ROOT_3 = math.sqrt(3)
#: Least sensitivity of a token, as a share of the mean of its level.
_FLOOR = 1e-6


def over_channels(values: Tensor, like: Tensor) -> Tensor:
    """One number a channel, (C,), broadcastable to a feature.

    Example:
        >>> over_channels(torch.ones(8), torch.zeros(2, 8, 4, 4)).shape
        torch.Size([1, 8, 1, 1])
    """
    shape = [1] * like.dim()
    shape[channel_dim(like)] = -1
    return values.view(shape)


def token_sensitivity(information: Tensor, channel_std: Tensor) -> Tensor:
    """The sensitivity w of every token.

    Args:
        information (Tensor): Diagonal of the Fisher information, E[g^2] >= 0,
            (B, C, H, W), (B, N, C) or (B, C).
        channel_std (Tensor): (C,), standard deviation of each channel.

    Returns:
        Tensor: The same shape with one channel, float32, in nats: twice what
        noise of one standard deviation on this token alone costs.

    Example:
        >>> information = torch.ones(1, 2, 1, 1)
        >>> token_sensitivity(information, torch.tensor([1.0, 3.0])).item()
        10.0
    """
    weight = over_channels(channel_std.square(), information)
    return (information.float() * weight).sum(
        channel_dim(information), keepdim=True)


def log_sensitivity(information: Tensor, channel_std: Tensor) -> Tensor:
    """log w of every token, nats; see :func:`token_sensitivity`.

    A token that nothing depends on counts as a millionth of the mean of all
    tokens that are given; where nothing depends on any, as the least that
    float32 tells from 0.

    Example:
        >>> information = torch.tensor([[[1.0], [0.0]]])  # (B, N, C)
        >>> log_sensitivity(information, torch.ones(1)).flatten().exp()
        tensor([1.0000e+00, 5.0000e-07])
    """
    w = token_sensitivity(information, channel_std)
    tiny = torch.finfo(torch.float32).tiny
    return (w + _FLOOR * w.mean()).clamp_min(tiny).log() if w.numel() else w


def tolerated_log_std(log_w: Tensor, nats: float,
                      tokens: Union[int, Tensor]) -> Tensor:
    r"""log of the noise that an image tolerates, every token of it at the
    same cost.

    .. math:: \log s_t = \tfrac12 \log \frac{2 \epsilon}{T w_t}

    At equal cost this is the noise of the largest volume.

    Args:
        log_w (Tensor): log w of the tokens, nats.
        nats (float): Tolerance epsilon of the whole image, > 0.
        tokens (int | Tensor): Number of tokens T of the image, of all levels.

    Returns:
        Tensor: The shape of ``log_w``; in units of the channels' standard
        deviation.

    Example:
        >>> log_w = torch.tensor([[4.0], [1.0]]).log()
        >>> s = tolerated_log_std(log_w, 0.02, tokens=2).exp()
        >>> (0.5 * log_w.exp() * s**2).sum()  # nats
        tensor(0.0200)
    """
    tokens = torch.as_tensor(tokens, dtype=log_w.dtype, device=log_w.device)
    return 0.5 * (math.log(2 * nats) - tokens.log() - log_w)


def resize_map(grid: Tensor, like: Tensor) -> Tensor:
    """A map of another size, by linear interpolation.

    Args:
        grid (Tensor): (B, h, w), or (B, n) of token sequences.
        like (Tensor): A feature (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Tensor: (B, 1, H, W), (B, N, 1) or (B, 1).

    Example:
        >>> resize_map(torch.zeros(2, 8, 8), torch.zeros(2, 3, 5, 7)).shape
        torch.Size([2, 1, 5, 7])
    """
    if like.dim() == 4:
        return F.interpolate(
            grid[:, None], like.shape[2:], mode='bilinear',
            align_corners=False)
    if like.dim() == 2:
        return grid.mean(1, keepdim=True)
    return F.interpolate(
        grid[:, None], like.size(1), mode='linear',
        align_corners=False).transpose(1, 2)


def to_grid(token_map: Tensor, size: tuple) -> Tensor:
    """A map of one channel on a grid: the reverse of :func:`resize_map`.

    Args:
        token_map (Tensor): (B, 1, H, W), (B, N, 1) or (B, 1).
        size (tuple): (h, w), or (n,) of token sequences.

    Returns:
        Tensor: (B, *size).

    Example:
        >>> to_grid(torch.zeros(2, 1, 5, 7), (8, 8)).shape
        torch.Size([2, 8, 8])
    """
    if token_map.dim() == 4:
        return F.interpolate(
            token_map, size, mode='bilinear', align_corners=False)[:, 0]
    return F.interpolate(
        to_tokens(token_map).transpose(1, 2), size, mode='linear',
        align_corners=False)[:, 0]


def relative_energy(feature: Tensor, mean: Tensor, std: Tensor,
                    floor: float = 1e-6) -> Tensor:
    """Mean square of each token in units of the channels' deviations from
    their means: what a map must beat that knows the feature and no task.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        mean (Tensor): (C,).
        std (Tensor): (C,); channels with 0 do not count.
        floor (float): Added to the result. Defaults to 1e-6.

    Returns:
        Tensor: The same shape with one channel.

    Example:
        >>> x = torch.tensor([[1.0, 4.0]])  # (B, C)
        >>> relative_energy(x, torch.zeros(2), torch.tensor([1.0, 2.0]))
        tensor([[2.5000]])
    """
    alive = std > 0
    unit = over_channels(torch.where(alive, std, 1.0).reciprocal() * alive,
                         feature)
    away = (feature.float() - over_channels(mean, feature)) * unit
    dim = channel_dim(feature)
    return away.square().sum(dim, keepdim=True) / alive.sum().clamp_min(
        1) + floor
