"""What a task discrepancy must offer."""
from abc import ABCMeta, abstractmethod
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional

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


@contextmanager
def host_pass(host: nn.Module, training: bool) -> Iterator[None]:
    """One pass of a host whose parts are in eval mode. Some hosts, such as
    DINO, return from their forward functions what the loss needs only ``if
    self.training``."""
    former, host.training = host.training, training
    try:
        yield
    finally:
        host.training = former


def run_host(host: nn.Module, mode: str, inputs: Tensor, data_samples: list):
    """The host's own ``predict`` or ``loss``.

    Args:
        host (nn.Module): A host with FeatJND, whose ``loss`` is another one,
            or a plain model of a host library.
        mode (str): 'predict' or 'loss'.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list): The host's data samples.
    """
    if hasattr(host, f'host_{mode}'):
        return getattr(host, f'host_{mode}')(inputs, data_samples)
    with host_pass(host, training=mode == 'loss'):
        return getattr(host, mode)(inputs, data_samples)


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
