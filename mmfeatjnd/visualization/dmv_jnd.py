"""Images, attention and JND over the training of DMV-JND."""
from pathlib import Path
from typing import Dict, Sequence

import numpy as np
from torch import Tensor

from mmfeatjnd.evaluation.figure import saved_figure
from mmfeatjnd.models import PixelJND

ROWS = ('attention', 'JND', 'original', 'distorted')


def _picture(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1], BGR, to (H, W, 3) RGB."""
    return image.float().clamp(0, 1).flip(0).permute(1, 2, 0).cpu().numpy()


def panels(found: PixelJND) -> Dict[str, np.ndarray]:
    """The four pictures of Fig. 8 of the paper, for one image.

    Args:
        found (PixelJND): Result of :meth:`mmfeatjnd.models.DMVJND.estimate`,
            of one image, (1, 3, H, W), read as BGR and normalized to [-1, 1].

    Returns:
        dict[str, np.ndarray]: 'attention' (H, W), and 'JND', where middle
        grey is no change, 'original' and 'distorted', (H, W, 3), in [0, 1].
    """
    x, e = found.clean[0], found.jnd[0]
    return dict(
        attention=found.attention[0, 0].cpu().numpy(),
        JND=_picture((e + 1) / 2),
        original=_picture((x + 1) / 2),
        distorted=_picture((x + e + 1) / 2))


def draw_training(stages: Dict[str, Sequence[PixelJND]], path: Path) -> None:
    """Attention, JND, original and distorted image over the training, as
    Fig. 8 of the paper: one block an image, one column a stage.

    Args:
        stages (dict[str, Sequence[PixelJND]]): The same images, each a batch
            of one, at several stages of the training, by the columns' titles.
        path (Path): The picture to write; its suffix gives the format.
    """
    columns, images = len(stages), len(next(iter(stages.values())))
    with saved_figure(path, 1.1 * columns * images + 0.8, 4.9) as figure:
        blocks = figure.subfigures(1, images, squeeze=False)[0]
        for index, block in enumerate(blocks):
            axes = block.subplots(len(ROWS), columns, squeeze=False)
            if index == 0:
                for axis, name in zip(axes[:, 0], ROWS):
                    axis.set_ylabel(name, fontsize=8)
            for line, (title, found) in zip(axes.T, stages.items()):
                line[0].set_title(title, fontsize=8)
                pictures = panels(found[index])
                for axis, name in zip(line, ROWS):
                    axis.imshow(
                        pictures[name],
                        cmap='gray',
                        vmin=0,
                        vmax=1,
                        interpolation='nearest')
                    axis.set_xticks([])
                    axis.set_yticks([])
