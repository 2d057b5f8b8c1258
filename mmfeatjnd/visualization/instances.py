"""What a detector found, in a picture."""
from typing import Sequence, Tuple

import numpy as np
from mmengine.structures import InstanceData


def draw_instances(axes,
                   image: np.ndarray,
                   found: InstanceData,
                   classes: Sequence[str],
                   palette: Sequence[Tuple[int, int, int]],
                   score_thr: float = 0.5) -> None:
    """Draw an image with boxes, masks and names of what was found in it.

    Args:
        axes (matplotlib.axes.Axes): Axes to draw on.
        image (ndarray): Picture (H, W, 3), uint8, RGB.
        found (InstanceData): Predictions with ``labels``, ``scores`` and
            ``bboxes`` (x1, y1, x2, y2) in pixels of the image, and possibly
            ``masks`` (N, H, W), bool.
        classes (Sequence[str]): Names of the classes.
        palette (Sequence[tuple]): Colours of the classes, RGB in [0, 255].
        score_thr (float): Least score that is drawn. Defaults to 0.5.
    """
    from matplotlib.patches import Rectangle
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    found = found.cpu()
    for i in np.flatnonzero(found.scores.numpy() >= score_thr).tolist():
        label = int(found.labels[i])
        colour = np.array(palette[label]) / 255
        mask = np.asarray(found.masks[i], bool) if 'masks' in found else None
        if mask is not None and mask.any():
            shade = np.zeros((*mask.shape, 4))
            shade[mask] = (*colour, 0.6)
            axes.imshow(shade, interpolation='nearest')
            axes.contour(mask, levels=[0.5], colors='white', linewidths=0.8)
        x1, y1, x2, y2 = found.bboxes[i].tolist()
        axes.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=1.5,
                      ec=colour))
        # within the picture, also of a box at its upper edge
        axes.text(
            max(x1, 0), max(y1, 1), classes[label], fontsize=7, va='bottom'
            if y1 > 0.1 * image.shape[0] else 'top', color='white',
            clip_on=True, bbox=dict(facecolor=colour, lw=0, pad=1))
