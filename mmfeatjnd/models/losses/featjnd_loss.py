"""The JND-aware objective: task discrepancy against magnitude."""
from typing import Dict, Optional

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmfeatjnd.functional import dual_ascent
from mmfeatjnd.registry import MODELS


@MODELS.register_module()
class FeatJNDLoss(nn.Module):
    r"""FeatJND's training objective.

    From the constrained problem of FeatJND (arXiv 2601.21933)

    .. math::
        \max_\theta M(\delta)\ \text{s.t.}\ D_t(h(f), h(f + \delta)) \le
        \epsilon

    to the Lagrangian that is minimised here:

    .. math:: \lambda\,[D_t - \epsilon]_+ - w\,M(\delta)

    Whether the paper keeps the hinge, and its weights, are not public; the
    defaults are ours. With ``adapt`` the multiplier follows the dual ascent
    of the constraint and the hinge is left to it:
    :math:`\lambda [D_t]_+ - w M`.

    Args:
        magnitude_weight (float): w. Give it a value near 1 where M rewards
            NRMSE, too, as with :class:`LearnedNRMSE`. Defaults to 0.01.
        tolerance (float): epsilon, in the unit of the discrepancy: nats for
            ``PredictionDivergence``, a relative rise of the loss for
            ``PseudoGroundTruth`` and ``Annotation``. Defaults to 0.
        multiplier (float): lambda, or where its adaptation begins. Defaults
            to 1.0.
        adapt (float, optional): Rate of the dual ascent on lambda, for a
            tolerance > 0. Defaults to None: lambda is fixed.
    """

    def __init__(self,
                 magnitude_weight: float = 0.01,
                 tolerance: float = 0.0,
                 multiplier: float = 1.0,
                 adapt: Optional[float] = None) -> None:
        super().__init__()
        if tolerance < 0 or (adapt is not None and tolerance == 0):
            raise ValueError('FeatJNDLoss: tolerance must be >= 0, and > 0 '
                             f'with adapt, but got {tolerance}')
        self.magnitude_weight = magnitude_weight
        self.tolerance = tolerance
        self.adapt = adapt
        self.register_buffer('multiplier', torch.tensor(float(multiplier)))

    def forward(self, discrepancy: Tensor,
                magnitude: Tensor) -> Dict[str, Tensor]:
        """Weigh the discrepancy of a batch against its magnitude.

        Args:
            discrepancy (Tensor): D_t of the batch, a scalar with gradient.
            magnitude (Tensor): M of the batch, a scalar with gradient, see
                :class:`BaseTraining`.

        Returns:
            dict: ``loss_jnd_discrepancy`` and ``loss_jnd_magnitude``, to be
            summed and minimised, and for the log ``jnd_discrepancy`` (D_t),
            ``jnd_magnitude`` (M) and ``jnd_multiplier`` (lambda).
        """
        multiplier = self.multiplier.clone()
        # what makes a host surer than it was must not be rewarded
        excess = discrepancy.clamp_min(0)
        if self.adapt is None:
            excess = (discrepancy - self.tolerance).clamp_min(0)
        elif self.training:
            observed = discrepancy.detach().clone()
            all_reduce(observed, 'mean')  # the same step on every rank
            self.multiplier.copy_(
                dual_ascent(self.multiplier, observed, self.tolerance,
                            self.adapt))
        return dict(
            loss_jnd_discrepancy=multiplier * excess,
            loss_jnd_magnitude=-self.magnitude_weight * magnitude,
            jnd_discrepancy=discrepancy.detach(),
            jnd_magnitude=magnitude.detach(),
            jnd_multiplier=multiplier)
