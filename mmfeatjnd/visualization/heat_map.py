"""Pictures of how much of the feature may change, and where."""
from pathlib import Path
from typing import Sequence, Union

import numpy as np
from torch import Tensor


def draw_heat_maps(images: Sequence[np.ndarray],
                   maps: Sequence[Union[np.ndarray, Tensor]],
                   path: Path) -> None:
    """Pictures with their heat maps over them, side by side, and one colour
    bar: all maps are in one unit and on one scale.

    Args:
        images (Sequence[ndarray]): Pictures (H, W, 3), uint8, RGB.
        maps (Sequence[ndarray | Tensor]): One map (H, W) a picture, of
            :meth:`mmfeatjnd.models.JNDMapRecorder.heat_map`.
        path (Path): Picture to write; its suffix gives the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    maps = [np.asarray(m) for m in maps]
    figure = Figure(
        figsize=(2.6 * len(maps) + 1.2, 2.8), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    limit = max(float(m.max()) for m in maps)
    for axis, image, heat in zip(axes, images, maps):
        axis.imshow(image)
        axis.set_xticks([])
        axis.set_yticks([])
        shown = axis.imshow(
            heat, cmap='viridis', vmin=0, vmax=limit, alpha=0.7)
    figure.colorbar(shown, ax=axes, label="JND / RMS of the feature's channel")
    figure.savefig(path, dpi=120)
