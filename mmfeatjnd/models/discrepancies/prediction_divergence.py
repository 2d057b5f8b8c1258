"""Divergence from the host's own clean prediction."""
from typing import Optional

from torch import Tensor, nn

from mmfeatjnd.functional import cross_entropy, kl_divergence
from mmfeatjnd.registry import MODELS
from .base_discrepancy import BaseDiscrepancy, host_logits


@MODELS.register_module()
class PredictionDivergence(BaseDiscrepancy):
    """KL divergence or cross entropy to the host's clean prediction.

    For classifiers and segmentors. No annotations are used. With 'ce' the
    discrepancy is the rise of the cross entropy to the clean top-1 label over
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

    def reference(self, host: nn.Module, inputs: Tensor,
                  data_samples: Optional[list]) -> Tensor:
        return host_logits(host, inputs)

    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list], reference: Tensor) -> Tensor:
        logits = host_logits(host, inputs)
        if self.kind == 'kl':
            return kl_divergence(reference, logits, self.temperature)
        return (cross_entropy(reference, logits) -
                cross_entropy(reference, reference))
