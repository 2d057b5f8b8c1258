"""Operations that keep what they see, and change nothing."""
from typing import List, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfeatjnd.functional import channel_dim
from mmfeatjnd.models.run import Visit


class Recorder:
    """An operation that changes nothing, and needs nothing."""

    needs_jnd = False
    needs_sensitivity = False
    needs_uncertainty = False
    needs_detections = False
    needs_readers = False
    leaves_out_padding = False

    def check(self, neck) -> None:
        """It needs no trained estimators."""


class FeatureRecorder(Recorder):
    """Keeps the features: in ``run.kept`` (feature, level, visit).

    Args:
        needs_sensitivity (bool): Whether the visits shall have the squared
            task gradient. Defaults to False.
        needs_uncertainty (bool): Whether they shall know how little sure the
            host is. Defaults to False.
        margin (int): Tokens around a picture that count as part of it.
            Defaults to 0.
    """

    def __init__(self,
                 needs_sensitivity: bool = False,
                 needs_uncertainty: bool = False,
                 margin: int = 0) -> None:
        self.margin = margin
        self.needs_sensitivity = needs_sensitivity
        self.needs_uncertainty = needs_uncertainty

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        visit.run.kept.append((feature.clone(), level, visit))
        return feature


class JNDMapRecorder(Recorder):
    """An operation that keeps the JND of every token and changes nothing.

    The JND of a token is the RMS over its channels of the JND map, in units
    of each channel's own standard deviation or, of signed maps and envelopes,
    RMS: 1 is as much change as there is feature. The unit is the same for all
    levels and images, so maps can be compared.

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
        unit = estimator.channel_unit(feature)
        relative = estimator(feature) / unit.clamp_min(1e-6)
        self.maps.append((visit.images, relative.square().mean(
            channel_dim(feature)).sqrt()))
        return feature

    def heat_map(self, size: Tuple[int, int]) -> Tensor:
        """One map for an image: the geometric mean over the levels.

        Args:
            size (tuple[int, int]): Height and width to resize to.

        Returns:
            Tensor: (B, H, W), >= 0, in the channels' own units.

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
            logs = maps.clamp_min(torch.finfo(maps.dtype).tiny).log()
            resized = F.interpolate(logs[:, None], size, mode='bilinear')
            total.index_add_(0, images, resized[:, 0])
            count.index_add_(0, images, torch.ones_like(maps[:, :1, :1]))
        return (total / count).exp()
