"""What a task discrepancy must offer."""
from abc import ABCMeta, abstractmethod
from typing import Any, Optional

from torch import Tensor, nn


class BaseDiscrepancy(nn.Module, metaclass=ABCMeta):
    """D_t between the host's clean and perturbed pass.

    :class:`mmfeatjnd.models.FeatJNDMixin` calls :meth:`reference` once in the
    clean pass, without gradient, and :meth:`forward` in the perturbed pass.
    Both run the host from its inputs by
    :func:`mmfeatjnd.hosts.run_host`; the part before the split is replayed.
    """

    @abstractmethod
    def reference(self,
                  host: nn.Module,
                  inputs: Tensor,
                  data_samples: Optional[list],
                  seed: int = 0) -> Any:
        """What the perturbed pass is compared with.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
            seed (int): Seed of what the host draws. Defaults to 0.
        """

    @abstractmethod
    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list], reference: Any) -> Tensor:
        """The discrepancy, a scalar; 0 where nothing has changed. Where it is
        negative the host is surer than it was; nothing rewards that."""
