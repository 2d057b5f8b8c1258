"""Pictures of how much of the feature may change, and where."""
from pathlib import Path
from typing import Sequence, Union

import numpy as np
from torch import Tensor

from mmfeatjnd.evaluation.figure import saved_figure

#: The smallest JND that has a colour of its own, as a share of the largest.
_LEAST = 1e-3


def show_heat_maps(axes: Sequence, images: Sequence[np.ndarray],
                   maps: Sequence[Union[np.ndarray, Tensor]]):
    """Draw pictures with their heat maps over them, all on one logarithmic
    scale.

    Args:
        axes (Sequence[matplotlib.axes.Axes]): Axes to draw on, one a picture.
        images (Sequence[ndarray]): Pictures (H, W, 3), uint8, RGB.
        maps (Sequence[ndarray | Tensor]): One map (H, W) a picture, of
            :meth:`mmfeatjnd.models.JNDMapRecorder.heat_map`.

    Returns:
        matplotlib.image.AxesImage: For a colour bar.
    """
    from matplotlib.colors import LogNorm
    maps = [np.asarray(m) for m in maps]
    limit = max(float(m.max()) for m in maps) or 1.0
    least = max(min(float(m.min()) for m in maps), _LEAST * limit)
    norm = LogNorm(min(least, 0.99 * limit), limit)
    for axis, image, heat in zip(axes, images, maps):
        axis.imshow(image)
        axis.set_xticks([])
        axis.set_yticks([])
        shown = axis.imshow(
            np.maximum(heat, norm.vmin), cmap='viridis', norm=norm, alpha=0.7)
    return shown


def draw_heat_maps(images: Sequence[np.ndarray],
                   maps: Sequence[Union[np.ndarray, Tensor]],
                   path: Path) -> None:
    """Write pictures with their heat maps over them, side by side, and one
    colour bar.

    Args:
        images (Sequence[ndarray]): See :func:`show_heat_maps`.
        maps (Sequence[ndarray | Tensor]): See :func:`show_heat_maps`.
        path (Path): Picture to write; its suffix gives the format.
    """
    with saved_figure(path, 2.6 * len(maps) + 1.2, 2.8, dpi=120) as figure:
        axes = figure.subplots(1, len(maps), squeeze=False)[0]
        shown = show_heat_maps(axes, images, maps)
        figure.colorbar(shown, ax=axes, label="JND / the channels' own unit")
