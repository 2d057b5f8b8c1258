"""What the operations share that train estimators by disturbing features."""
from abc import ABC, abstractmethod
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import l2_magnitude, log_magnitude
from mmfeatjnd.hosts import adapter_of, sharing_prefix
from mmfeatjnd.models.run import Visit
from mmfeatjnd.models.splits import PrefixReplay

#: Of what M may be, beside the quantizer's bits: what is measured of a level.
MAGNITUDES = dict(
    l2=lambda delta, feature, channel_rms: l2_magnitude(delta, feature),
    log=lambda delta, feature, channel_rms: log_magnitude(delta, channel_rms))

#: What M is measured on, the features, and the RMS of their channels.
Kept = Tuple[Tensor, Tensor, Tensor]


class BaseTraining(ABC):
    """Disturbs the features in training, and says what M is made of.

    An operation as those of testing, but with a gradient to the estimators.
    Every visit keeps in ``run.kept`` what :meth:`magnitude` is made of.

    Args:
        magnitude (str): M: 'l2' (the paper's example) or 'log' (mean log
            magnitude relative to the RMS of the channel).
    """

    distils = False
    #: Modes of the estimators that it can train.
    modes = ('signed', 'envelope')
    #: Whether the estimator decides how strong its distortion is.
    free = True
    magnitudes = tuple(MAGNITUDES)

    def __init__(self, magnitude: str) -> None:
        if magnitude not in self.magnitudes:
            raise ValueError(
                f'{type(self).__name__}: magnitude must be one of '
                f'{self.magnitudes}, but got {magnitude!r}')
        self.magnitude_name = magnitude

    def step(self, model, inputs: Tensor, data_samples: Optional[list],
             seed: int) -> tuple:
        """Losses of one batch: a clean pass, then the disturbed pass. The part
        before the split runs once.

        Args:
            model (FeatJNDMixin): The host with its neck.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
            seed (int): Seed of the draws.

        Returns:
            tuple: The losses, see :class:`FeatJNDLoss`; the run; and what the
            task notices, a scalar.
        """
        neck, discrepancy = model.featjnd_neck, model.featjnd_discrepancy
        content = adapter_of(model).content(model, inputs, data_samples, True)
        # what stands for the images where they have no data samples
        images = data_samples or range(len(inputs))
        with sharing_prefix(model, PrefixReplay(neck)):
            with torch.no_grad():
                reference = discrepancy.reference(model, inputs, data_samples,
                                                  seed)
            with neck.run(self, images, seed=seed, content=content) as run:
                noticed = discrepancy(model, inputs, data_samples, reference)
        # a batch without any region keeps nothing
        magnitude = self.magnitude(run.kept) if run.kept \
            else torch.zeros_like(noticed)
        losses = model.featjnd_objective(noticed, magnitude)
        return losses, run, losses['jnd_discrepancy']

    def begin(self, parts: List[Tensor], level: int, neck) -> None:
        """Once for a level of a batch, however many sizes its images have:
        the estimator follows the features, and waits for the other
        processes."""
        neck.estimator_of(level).follow(parts)

    @abstractmethod
    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        """Disturb one level: (R, ...) to the same shape, with a gradient."""

    def keep(self, visit: Visit, level: int, delta: Tensor,
             feature: Tensor) -> None:
        """Note what M is measured on, and the clean feature."""
        channel_rms = visit.neck.estimator_of(level).channel_unit(feature)
        visit.run.kept.append((delta, feature, channel_rms))

    def magnitude(self, kept: Sequence[Kept]) -> Tensor:
        """M of a batch.

        Args:
            kept (Sequence[tuple]): What :meth:`keep` kept, for each level and
                size of images; at least one.

        Returns:
            Tensor: A scalar, with a gradient to the estimators.
        """
        measure = MAGNITUDES[self.magnitude_name]
        # levels, and images of several sizes
        total = sum(len(feature) for _, feature, _ in kept)
        return sum(
            measure(*part) * (len(part[1]) / total) for part in kept)
