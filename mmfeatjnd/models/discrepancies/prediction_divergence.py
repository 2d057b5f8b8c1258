"""Divergence from the host's own clean prediction."""
from typing import Optional

from torch import Tensor, nn

from mmfeatjnd.functional import (
    binary_cross_entropy,
    binary_kl_divergence,
    cross_entropy,
    kl_divergence,
)
from mmfeatjnd.hosts import Answer, adapter_of
from mmfeatjnd.registry import MODELS
from .base_discrepancy import BaseDiscrepancy


@MODELS.register_module()
class PredictionDivergence(BaseDiscrepancy):
    """KL divergence or cross entropy to the host's clean prediction.

    For classifiers and segmentors. No annotations are used. The host says how
    it decides: by a softmax over its classes, or by a sigmoid on each of its
    logits (several labels an image, or one class a pixel). With 'ce' the
    discrepancy is the rise of the cross entropy to the clean decision over
    its value in the clean pass.

    Args:
        kind (str): 'kl' or 'ce'. Defaults to 'kl'.
        temperature (float): Divides the logits of 'kl'. Defaults to 1.0.
    """

    def __init__(self, kind: str = 'kl', temperature: float = 1.0) -> None:
        super().__init__()
        if kind not in ('kl', 'ce'):
            raise ValueError("PredictionDivergence: kind must be 'kl' or "
                             f"'ce', but got {kind!r}")
        self.kind = kind
        self.temperature = temperature

    def reference(self,
                  host: nn.Module,
                  inputs: Tensor,
                  data_samples: Optional[list],
                  seed: int = 0) -> Answer:
        """What the host says of the clean features."""
        return adapter_of(host).answer(host, inputs, data_samples)

    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list], reference: Answer) -> Tensor:
        """Nats per image or per pixel, a scalar >= 0."""
        clean = reference.logits
        logits = adapter_of(host).answer(host, inputs, data_samples).logits
        if reference.kind == 'categorical':
            if self.kind == 'kl':
                return kl_divergence(clean, logits, self.temperature)
            return cross_entropy(clean, logits) - cross_entropy(clean, clean)
        if self.kind == 'kl':
            return binary_kl_divergence(clean, logits, self.temperature)
        rise = [
            binary_cross_entropy(clean, x, reference.threshold)
            for x in (logits, clean)
        ]
        return rise[0] - rise[1]
