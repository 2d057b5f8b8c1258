"""The host's own loss as discrepancy: against annotations or predictions."""
from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.registry import MODELS
from .base_discrepancy import BaseDiscrepancy

#: Steps without a single object after which training stops.
PATIENCE = 50


class LossReference(NamedTuple):
    """The targets of the host's loss, and its value in the clean pass."""
    data_samples: list
    loss: Tensor
    seed: int


@MODELS.register_module()
class Annotation(BaseDiscrepancy):
    r"""Relative rise of the host's own loss against the annotations.

    .. math:: D = \frac{L(f + \delta) - L(f)}{L(f)}

    Works for every host that can be trained. Ours.
    """

    def targets(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        """The data samples that the host's loss is computed against."""
        if not data_samples:
            raise ValueError(f'{type(self).__name__} needs data samples')
        return data_samples

    def reference(self,
                  host: nn.Module,
                  inputs: Tensor,
                  data_samples: Optional[list],
                  seed: int = 0) -> LossReference:
        """The targets, and the host's loss against them; heads that sample
        draw by the seed."""
        targets = self.targets(host, inputs, data_samples)
        loss = adapter_of(host).loss(host, inputs, targets, seed)
        return LossReference(targets, loss, seed)

    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list],
                reference: LossReference) -> Tensor:
        """The relative rise of the loss, a scalar."""
        loss = adapter_of(host).loss(host, inputs, reference.data_samples,
                                     reference.seed)
        # a host that fits its targets perfectly has no scale of its own
        return (loss - reference.loss) / reference.loss.clamp_min(1e-3)


@MODELS.register_module()
class PseudoGroundTruth(Annotation):
    """The same against the host's own clean predictions.

    No annotations are used, so any images will do. Classifiers and segmentors
    are compared with what they decide, detectors with the boxes (and masks)
    of their confident detections; boxes without extent are no objects, as in
    the host's training. Ours.

    Args:
        score_thr (float): Detections below are no objects. Defaults to 0.3.

    Raises:
        RuntimeError: In none of 50 steps in a row was there an object.
    """

    def __init__(self, score_thr: float = 0.3) -> None:
        super().__init__()
        self.score_thr = score_thr
        self._empty = 0

    @torch.no_grad()
    def targets(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        """Data samples with the host's predictions as ground truth."""
        targets = adapter_of(host).own_targets(host, inputs, data_samples,
                                               self.score_thr)
        nothing = all('gt_instances' in t and not len(t.gt_instances)
                      for t in targets)
        if self.training:
            self._empty = self._empty + 1 if nothing else 0
        if self._empty >= PATIENCE:
            raise RuntimeError(
                f'PseudoGroundTruth: {type(host).__name__} has found no '
                f'object of at least score_thr={self.score_thr:g} in '
                f'{PATIENCE} steps, so there is nothing to notice. Check its '
                'checkpoint; then lower score_thr, or use discrepancy=dict('
                "type='mmfeatjnd.Annotation').")
        return targets
