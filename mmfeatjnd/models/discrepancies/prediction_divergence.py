"""Divergence from the host's own clean answer, in nats."""
from typing import NamedTuple, Optional

from torch import Tensor, nn

from mmfeatjnd.functional import nats
from mmfeatjnd.hosts import Likelihood, NoLikelihood, adapter_of
from mmfeatjnd.registry import MODELS
from .base_discrepancy import BaseDiscrepancy


class _Reference(NamedTuple):
    """The clean answer, and of how many images it is."""
    answer: Likelihood
    batch_size: int


@MODELS.register_module()
class PredictionDivergence(BaseDiscrepancy):
    r"""KL divergence from the host's clean answer, nats of an image.

    .. math:: D_t = \frac{1}{B} \sum_k w_k\, \mathrm{KL}(p_k \| q_k)

    over all that the host says of B images as distributions: classes,
    objectness, boxes, the pixels of masks and of label maps, see
    :meth:`mmfeatjnd.hosts.HostAdapter.likelihood` and
    :func:`mmfeatjnd.functional.nats`. No annotations are used. FeatJND
    (arXiv 2601.21933) leaves its discrepancy open; this is ours.
    """

    def reference(self,
                  host: nn.Module,
                  inputs: Tensor,
                  data_samples: Optional[list],
                  seed: int = 0) -> _Reference:
        """What the host says of the clean features.

        Raises:
            TypeError: What this host says is not known as distributions.
        """
        try:
            answer = adapter_of(host).likelihood(host, inputs, data_samples)
        except NoLikelihood as error:
            raise TypeError(
                f'PredictionDivergence: {str(error).rstrip(".")}. Use '
                "discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth') or dict("
                "type='mmfeatjnd.Annotation').") from error
        return _Reference(answer, len(inputs))

    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list],
                reference: _Reference) -> Tensor:
        """Nats of an image, the mean over the batch: a scalar >= 0."""
        clean, size = reference
        changed = adapter_of(host).likelihood(host, inputs, data_samples,
                                              clean.proposals)
        return nats(clean.terms, changed.terms, size).mean()
