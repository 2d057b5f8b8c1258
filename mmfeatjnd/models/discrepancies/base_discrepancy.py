"""What a task discrepancy must offer."""
from abc import ABCMeta, abstractmethod
from typing import Any, List, Optional

from torch import Tensor, nn

from mmfeatjnd.compat import host_library


class BaseDiscrepancy(nn.Module, metaclass=ABCMeta):
    """D_t between the host's clean and perturbed pass.

    :class:`mmfeatjnd.models.FeatJNDMixin` calls :meth:`reference` once in the
    clean pass, without gradient, and :meth:`forward` in the perturbed pass.
    Both run the host from its inputs; the part before the split is replayed.
    """

    @abstractmethod
    def reference(self, host: nn.Module, inputs: Tensor,
                  data_samples: Optional[list]) -> Any:
        """What the perturbed pass is compared with."""

    @abstractmethod
    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list], reference: Any) -> Tensor:
        """The discrepancy, a scalar; 0 where nothing has changed."""


def host_logits(host: nn.Module, inputs: Tensor) -> Tensor:
    """The host's logits, (B, K) or (B, K, H, W).

    Raises:
        TypeError: The host's tensor mode returns something else.
    """
    if host_library(host) != 'mmdet':  # some of which need data samples
        logits = host.host_forward(inputs, None, mode='tensor')
        if isinstance(logits, (list, tuple)) and len(logits) == 1:
            logits = logits[0]
        if isinstance(logits, Tensor) and logits.dim() in (2, 4):
            return logits
    raise TypeError(
        f'{type(host).__name__} has no single logit tensor. Use discrepancy='
        "dict(type='mmfeatjnd.PseudoGroundTruth') or dict(type="
        "'mmfeatjnd.Annotation').")


def total_loss(losses: dict) -> Tensor:
    """Sum of all entries with 'loss' in their key, as MMEngine sums them."""
    terms: List[Tensor] = []
    for key, value in losses.items():
        if 'loss' in key:
            values = value if isinstance(value, (list, tuple)) else [value]
            terms.extend(v.mean() for v in values)
    return sum(terms)
