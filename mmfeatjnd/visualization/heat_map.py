"""Heat maps: how much of the feature may change, and where."""
from pathlib import Path
from typing import List, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeatjnd.functional import channel_dim
from mmfeatjnd.models import Visit


class JNDMapRecorder:
    """An operation that keeps the JND of every token and changes nothing.

    The JND of a token is the RMS over its channels of the JND map, in units
    of each channel's own RMS: 1 is as much change as there is feature. The
    unit is the same for all levels and images, so maps can be compared.

    Example::

        recorder = JNDMapRecorder()
        with neck.run(recorder, images=data_samples):
            model.predict(inputs, data_samples)
        maps = recorder.heat_map((480, 640))
    """

    def __init__(self) -> None:
        #: The image of each row, and their maps (R, H, W), of every visit.
        self.maps: List[Tuple[Tensor, Tensor]] = []

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        estimator = visit.neck.estimator_of(level)
        rms = estimator.channel_rms(feature)
        relative = estimator(feature) / rms.clamp_min(1e-6)
        self.maps.append((visit.images, relative.square().mean(
            channel_dim(feature)).sqrt()))
        return feature

    def heat_map(self, size: Tuple[int, int]) -> Tensor:
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


def draw_heat_maps(images: Sequence[np.ndarray],
                   maps: Sequence[Union[np.ndarray, Tensor]],
                   path: Path) -> None:
    """Pictures with their heat maps over them, side by side, and one colour
    bar: all maps are in one unit and on one scale.

    Args:
        images (Sequence[ndarray]): Pictures (H, W, 3), uint8, RGB.
        maps (Sequence[ndarray | Tensor]): One map (H, W) a picture, of
            :meth:`JNDMapRecorder.heat_map`.
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
