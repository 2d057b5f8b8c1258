"""Images of several sizes in one batch, and images in another size."""
from typing import Dict, List, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

Images = Union[Tensor, Sequence[Tensor]]


def group_by_size(images: Images) -> List[Tuple[List[int], Tensor]]:
    """Split a batch into batches of one size each.

    Nothing is padded, so that what a network makes of an image does not
    depend on the other images; each size costs a pass of it.

    Args:
        images (Tensor | Sequence[Tensor]): (B, C, H, W), or (C, h, w) each.

    Returns:
        list[tuple[list[int], Tensor]]: Positions in the batch, and the images
        there, (n, C, h, w). Sizes are in the order in which they first come.

    Example:
        >>> wide, tall = torch.zeros(3, 2, 4), torch.zeros(3, 4, 2)
        >>> for positions, group in group_by_size([wide, tall, wide]):
        ...     print(positions, tuple(group.shape))
        [0, 2] (2, 3, 2, 4)
        [1] (1, 3, 4, 2)
    """
    if isinstance(images, Tensor):
        return [(list(range(len(images))), images)]
    positions: Dict[tuple, List[int]] = {}
    for i, image in enumerate(images):
        positions.setdefault(tuple(image.shape), []).append(i)
    return [(where, torch.stack([images[i] for i in where]))
            for where in positions.values()]


def resize_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly, with a low-pass filter where images shrink.

    Args:
        images (Tensor): (B, C, h, w), floating.
        size (Sequence[int]): H, W.

    Returns:
        Tensor: (B, C, H, W); the images themselves if they have that size.

    Example:
        >>> resize_images(torch.zeros(2, 3, 32, 48), (16, 64)).shape
        torch.Size([2, 3, 16, 64])
    """
    size = tuple(size)
    if images.shape[-2:] == size:
        return images
    shrinks = images.size(-2) > size[0] or images.size(-1) > size[1]
    return F.interpolate(
        images, size, mode='bilinear', align_corners=False, antialias=shrinks)
