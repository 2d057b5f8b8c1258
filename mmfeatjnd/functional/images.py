"""Images of several sizes in one batch."""
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

Images = Union[Tensor, Sequence[Tensor]]


def pad_images(images: Images) -> Tuple[Tensor, Optional[Tensor]]:
    """Stack images, with zeros at the bottom and on the right where sizes
    differ.

    Args:
        images (Tensor | Sequence[Tensor]): (B, C, H, W), or (C, h, w) each.

    Returns:
        tuple[Tensor, Tensor | None]: (B, C, H, W), and where it is image,
        (B, 1, H, W), bool; None if it is everywhere.

    Raises:
        ValueError: The numbers of channels differ.
    """
    if isinstance(images, Tensor):
        return images, None
    shapes = {tuple(image.shape) for image in images}
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError('the images of a batch must have the same number of '
                         f'channels, but have the shapes {sorted(shapes)}')
    if len(shapes) == 1:
        return torch.stack(list(images)), None
    size = [max(shape[i] for shape in shapes) for i in (1, 2)]

    def pad(x: Tensor) -> Tensor:
        return F.pad(x, (0, size[1] - x.size(2), 0, size[0] - x.size(1)))

    content = [
        torch.ones_like(image[:1], dtype=torch.bool) for image in images
    ]
    return (torch.stack([pad(x) for x in images]),
            torch.stack([pad(x) for x in content]))


def crop_images(batch: Tensor, like: Images) -> Images:
    """Undo :func:`pad_images`.

    Args:
        batch (Tensor): (B, C, H, W).
        like (Tensor | Sequence[Tensor]): The images before padding.

    Returns:
        Tensor | list[Tensor]: In the sizes of ``like``; a tensor if that is
        one or its sizes are equal.
    """
    if isinstance(like, Tensor):
        return batch
    sizes = [x.shape[-2:] for x in like]
    if len(set(sizes)) == 1:
        return batch
    return [x[:, :h, :w] for x, (h, w) in zip(batch, sizes)]


def resize_images(images: Images, size: Sequence[int]) -> Tensor:
    """Bilinear, with a low-pass filter where it shrinks.

    Args:
        images (Tensor | Sequence[Tensor]): (B, C, h, w), or (C, h, w) each.
        size (Sequence[int]): H, W.

    Returns:
        Tensor: (B, C, H, W).
    """
    if not isinstance(images, Tensor):
        return torch.cat([resize_images(x[None], size) for x in images])
    size = tuple(size)
    if images.shape[-2:] == size:
        return images
    shrinks = images.size(-2) > size[0] or images.size(-1) > size[1]
    return F.interpolate(
        images, size, mode='bilinear', align_corners=False, antialias=shrinks)


def resize_maps(maps: Images, like: Images) -> Tensor:
    """Resize maps to the images that they belong to, and pad alike.

    Args:
        maps (Tensor | Sequence[Tensor]): (B, 1, h, w), or (1, h, w) each.
        like (Tensor | Sequence[Tensor]): The images, see :func:`pad_images`.

    Returns:
        Tensor: (B, 1, H, W).
    """
    if isinstance(maps, Tensor) and isinstance(like, Tensor):
        return resize_images(maps, like.shape[-2:])
    return pad_images([
        resize_images(m[None], x.shape[-2:])[0] for m, x in zip(maps, like)
    ])[0]
