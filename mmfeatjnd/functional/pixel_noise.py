"""What a JND of pixels is compared with: noise and controls of its power."""
from typing import Callable, Optional

import torch
from torch import Tensor

from .budget import bisect_scale
from .dmv_jnd import mean_squared_error
from .images import Images, pad_images
from .layout import per_image
from .noise import gaussian_noise

RANDOM_DISTORTIONS = ('gaussian', 'random-sign')
PIXEL_DISTORTIONS = ('dmv-jnd', 'sign-flipped', *RANDOM_DISTORTIONS)


def control(jnd: Tensor, distortion: str, keys: Tensor,
            images: Images) -> Tensor:
    """White noise, or the JND with other signs.

    Args:
        jnd (Tensor): e, (B, C, H, W).
        distortion (str): 'gaussian'; 'sign-flipped', -e; or 'random-sign', e
            with a random sign for every value.
        keys (Tensor): (B,), int64, see :func:`image_keys`.
        images (Tensor | Sequence[Tensor]): In their own sizes, which may
            differ: an image's noise does not depend on its padding.

    Returns:
        Tensor: The shape of ``jnd``, of any power.
    """
    if distortion == 'sign-flipped':
        return -jnd
    if isinstance(images, Tensor):
        noise = gaussian_noise(keys, jnd.shape[1:])
    else:
        noise, _ = pad_images([
            gaussian_noise(key, image.shape)[0]
            for key, image in zip(keys.split(1), images)
        ])
    return noise if distortion == 'gaussian' else jnd * noise.sign()


def match_power(noise: Tensor,
                jnd: Tensor,
                limit: Callable[[Tensor], Tensor],
                content: Optional[Tensor] = None) -> Tensor:
    """Scale noise to the mean squared error of the JND, image by image.

    Args:
        noise (Tensor): (B, C, H, W).
        jnd (Tensor): e, the same shape.
        limit (Callable): From a change of the images to what remains of it
            after clipping.
        content (Tensor, optional): (B, 1, H, W), bool: where the images are.
            Defaults to None: everywhere.

    Returns:
        Tensor: The limited noise. Where it cannot reach the power, as near
        to it as it comes.
    """
    target = mean_squared_error(jnd, content)

    def scaled(scale: Tensor) -> Tensor:
        return limit(noise * per_image(scale, noise))

    scale = bisect_scale(
        lambda scale: mean_squared_error(scaled(scale), content), target)
    # the search never tries 0
    return scaled(torch.where(target > 0, scale, 0.0))
