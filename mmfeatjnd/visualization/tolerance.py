"""Where a JND map tolerates change."""
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeatjnd.functional import channel_dim
from mmfeatjnd.models import Visit


class ToleranceRecorder:
    """An operation that keeps the tolerance of every token and changes
    nothing.

    The tolerance of a token is the RMS over its channels of the JND map, in
    units of each channel's own RMS: 1 is as much change as there is feature.
    The unit is the same for all levels and images, so maps can be compared.

    Example::

        recorder = ToleranceRecorder()
        with neck.run(recorder, images=data_samples):
            model.predict(inputs, data_samples)
        maps = recorder.heatmap((480, 640))
    """

    def __init__(self) -> None:
        #: Of every visit: the image of each row, and their maps (R, H, W).
        self.maps: List[Tuple[Tensor, Tensor]] = []

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        estimator = visit.neck.estimator_of(level)
        rms = estimator.channel_rms(feature)
        relative = estimator(feature) / rms.clamp_min(1e-6)
        self.maps.append((visit.images, relative.square().mean(
            channel_dim(feature)).sqrt()))
        return feature

    def heatmap(self, size: Tuple[int, int]) -> Tensor:
        """One map for an image: the mean over the levels.

        Args:
            size (tuple[int, int]): Height and width to resize to.

        Returns:
            Tensor: (B, H, W), >= 0, in units of the channels' RMS.

        Raises:
            ValueError: The split emits no maps.
        """
        batch = 1 + max(int(images.max()) for images, _ in self.maps)
        device = self.maps[0][1].device
        total = torch.zeros(batch, *size, device=device)
        count = torch.zeros(batch, 1, 1, device=device)
        for images, maps in self.maps:
            if maps.dim() != 3:
                raise ValueError('A heat map needs features (B, C, H, W)')
            resized = F.interpolate(maps[:, None], size, mode='bilinear')
            total.index_add_(0, images, resized[:, 0])
            count.index_add_(0, images, torch.ones_like(maps[:, :1, :1]))
        return total / count


def draw_tolerance(pictures: Sequence[Sequence[np.ndarray]],
                   maps: Sequence[np.ndarray], titles: Sequence[str],
                   path: Path) -> None:
    """Rows of pictures, the map over the last of each, and one colour bar:
    all maps are in one unit and on one scale.

    Args:
        pictures (Sequence[Sequence[ndarray]]): Rows of (H, W, 3), uint8, RGB.
        maps (Sequence[ndarray]): One a row, (H, W): of
            :meth:`ToleranceRecorder.heatmap`.
        titles (Sequence[str]): One a column.
        path (Path): The picture to write; its suffix gives the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    rows, columns = len(pictures), len(titles)
    figure = Figure(
        figsize=(2.2 * columns + 0.8, 2.2 * rows + 0.3), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = max(float(m.max()) for m in maps)
    for line, images, heat in zip(axes, pictures, maps):
        for axis, image in zip(line, images):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
        shown = line[-1].imshow(
            heat, cmap='viridis', vmin=0, vmax=limit, alpha=0.7)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    figure.colorbar(
        shown,
        ax=axes,
        shrink=0.6,
        label="tolerated change / RMS of the feature's channel")
    figure.savefig(path, dpi=120)
