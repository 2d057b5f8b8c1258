"""The pictures of DMV-JND."""
from pathlib import Path
from typing import Dict, Sequence

import numpy as np
from torch import Tensor

from mmfeatjnd.models import Distorted

ROWS = ('attention', 'JND', 'original', 'distorted')


def _picture(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1], BGR, to (H, W, 3) RGB."""
    return image.float().clamp(0, 1).flip(0).permute(1, 2, 0).cpu().numpy()


def panels(found: Distorted, index: int) -> Dict[str, np.ndarray]:
    """The four pictures of Fig. 8 of the paper, for one image of a batch.

    Args:
        found (Distorted): Of :meth:`mmfeatjnd.models.DMVJND.find`, of images
            read as BGR and normalized to [-1, 1].
        index (int): Which image.

    Returns:
        dict[str, np.ndarray]: 'attention' (H, W), and 'JND', where middle
        grey is no change, 'original' and 'distorted', (H, W, 3), in [0, 1].
    """
    h, w = found.images[index].shape[-2:]
    x = found.clean[index, :, :h, :w]
    e = found.jnd[index, :, :h, :w]
    return dict(
        attention=found.attention[index, 0, :h, :w].cpu().numpy(),
        JND=_picture((e + 1) / 2),
        original=_picture((x + 1) / 2),
        distorted=_picture((x + e + 1) / 2))


def draw_training(stages: Dict[str, Distorted], path: Path,
                  images: Sequence[int]) -> None:
    """Attention, JND, original and distorted image over the training, as
    Fig. 8 of the paper: one block an image, one column a stage.

    Args:
        stages (dict[str, Distorted]): The same batch at several stages of the
            training, by the columns' titles.
        path (Path): The picture to write; its suffix gives the format.
        images (Sequence[int]): Which images of the batch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    columns = len(stages)
    figure = Figure(
        figsize=(1.1 * columns * len(images) + 0.8, 4.9), layout='constrained')
    FigureCanvasAgg(figure)
    blocks = figure.subfigures(1, len(images), squeeze=False)[0]
    for block, index in zip(blocks, images):
        axes = block.subplots(len(ROWS), columns, squeeze=False)
        for column, (title, found) in enumerate(stages.items()):
            pictures = panels(found, index)
            axes[0, column].set_title(title, fontsize=8)
            for axis, name in zip(axes[:, column], ROWS):
                axis.imshow(
                    pictures[name],
                    cmap='gray',
                    vmin=0,
                    vmax=1,
                    interpolation='nearest')
                axis.set_xticks([])
                axis.set_yticks([])
                if block is blocks[0] and column == 0:
                    axis.set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=150)


def draw_curve(rows: Sequence[dict], path: Path) -> None:
    """RCA against PSNR, by distortion.

    Args:
        rows (Sequence[dict]): With ``series``, the name of the line, and
            ``metrics`` with 'rca/mean' and 'psnr'.
        path (Path): The picture to write; its suffix gives the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in dict.fromkeys(row['series'] for row in rows):
        points = sorted((row['metrics']['psnr'], row['metrics']['rca/mean'])
                        for row in rows if row['series'] == name)
        axes.plot(*zip(*points), marker='o', ms=4, label=name)
    axes.set_xlabel('PSNR of the distorted image (dB, range 255)')
    axes.set_ylabel('RCA, mean of the tasks (%)')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
