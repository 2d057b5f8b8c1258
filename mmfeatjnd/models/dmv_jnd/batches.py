"""What goes through DMV-JND: batches of images of one size."""
from typing import Any, List, NamedTuple, Optional, Sequence

from torch import Tensor

from mmfeatjnd.functional.images import Images, group_by_size
from mmfeatjnd.models.run import image_ids
from .base_task import TaskReference


class SizeGroup(NamedTuple):
    """The images of a batch that have one size.

    Attributes:
        images (Tensor): (n, C, h, w).
        data_samples (list, optional): Their n data samples.
        ids (list): Their n identities, integers or strings.
        positions (list[int]): Where they are in the batch.
    """
    images: Tensor
    data_samples: Optional[list]
    ids: list
    positions: List[int]


def group_batch(images: Images,
                data_samples: Optional[list] = None) -> List[SizeGroup]:
    """Split what a data loader returns by the sizes of the images.

    Args:
        images (Tensor | Sequence[Tensor]): (B, C, H, W), or (C, h, w) each.
        data_samples (list, optional): One an image; they name the images.
            Without them an image is named by its position in the batch.
            Defaults to None.

    Returns:
        list[SizeGroup]: Sizes are in the order in which they first come.
    """
    ids = image_ids(data_samples, len(images))
    return [
        SizeGroup(group, data_samples and [data_samples[i] for i in where],
                  [ids[i] for i in where], where)
        for where, group in group_by_size(images)
    ]


def in_batch_order(groups: Sequence[SizeGroup],
                   values: Sequence[Sequence]) -> List[Any]:
    """Undo :func:`group_batch`.

    Args:
        groups (Sequence[SizeGroup]): The groups of a batch.
        values (Sequence[Sequence]): A sequence or tensor for each group, with
            one value an image.

    Returns:
        list: The values, one an image of the batch.
    """
    ordered = [None] * sum(len(group.positions) for group in groups)
    for group, part in zip(groups, values):
        for i, value in zip(group.positions, part):
            ordered[i] = value
    return ordered


class PixelJND(NamedTuple):
    """Images of one size and their JND.

    Attributes:
        clean (Tensor): x, (B, C, H, W), normalized.
        jnd (Tensor): e, (B, C, H, W), in the unit of x.
        attention (Tensor): c, (B, 1, H, W), in [0, 1].
        references (list[TaskReference]): What each task says of x.
        ids (list): Identities of the images, on which their noise depends.
    """
    clean: Tensor
    jnd: Tensor
    attention: Tensor
    references: List[TaskReference]
    ids: list


class DistortedImages(NamedTuple):
    """Images of one size with a change.

    Attributes:
        images (Tensor): (B, C, H, W), float32, in pixels.
        change (Tensor): What was added to x, (B, C, H, W), in the unit of x.
        estimate (PixelJND): The images without it, and their JND.
    """
    images: Tensor
    change: Tensor
    estimate: PixelJND
