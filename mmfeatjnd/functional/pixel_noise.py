"""What a JND of pixels is compared with: noise and controls of its power."""
from typing import Callable

import torch
from torch import Tensor

from .budget import bisect_scale
from .dmv_jnd import mean_squared_error
from .layout import per_image
from .noise import gaussian_noise

RANDOM_DISTORTIONS = ('gaussian', 'random-sign')
PIXEL_DISTORTIONS = ('dmv-jnd', 'sign-flipped', *RANDOM_DISTORTIONS)


def control(jnd: Tensor, distortion: str, keys: Tensor) -> Tensor:
    """White noise, or the JND with other signs.

    Args:
        jnd (Tensor): e, (B, C, H, W), floating.
        distortion (str): 'gaussian'; 'sign-flipped', -e; or 'random-sign', e
            with a random sign for every value.
        keys (Tensor): Keys of the images' noise, (B,), int64; see
            :func:`mmfeatjnd.functional.image_keys`.

    Returns:
        Tensor: (B, C, H, W), of any power.

    Example:
        >>> jnd, keys = torch.rand(2, 3, 8, 8), torch.tensor([5, 6])
        >>> control(jnd, 'gaussian', keys).shape
        torch.Size([2, 3, 8, 8])
        >>> torch.equal(control(jnd, 'random-sign', keys).abs(), jnd)
        True
    """
    if distortion == 'sign-flipped':
        return -jnd
    noise = gaussian_noise(keys, jnd.shape[1:])
    return noise if distortion == 'gaussian' else jnd * noise.sign()


def match_power(noise: Tensor, jnd: Tensor,
                limit: Callable[[Tensor], Tensor]) -> Tensor:
    """Scale noise to the mean squared error of the JND, image by image.

    Args:
        noise (Tensor): (B, C, H, W), floating.
        jnd (Tensor): e, the same shape.
        limit (Callable): From a change of the images to what remains of it
            after clipping.

    Returns:
        Tensor: The limited noise, (B, C, H, W). Where it cannot reach the
        power, as near to it as it comes.

    Example:
        >>> noise = torch.tensor([3., 4.]).view(1, 1, 1, 2)
        >>> jnd = torch.full((1, 1, 1, 2), 0.5)
        >>> matched = match_power(noise, jnd, lambda e: e.clamp(-1, 1))
        >>> round(matched.square().mean().item(), 4)
        0.25
    """
    target = mean_squared_error(jnd)

    def scaled(scale: Tensor) -> Tensor:
        return limit(noise * per_image(scale, noise))

    scale = bisect_scale(
        lambda scale: mean_squared_error(scaled(scale)), target)
    # the search never tries 0
    return scaled(torch.where(target > 0, scale, 0.0))
