"""The JND-aware objective: task discrepancy against magnitude."""
from typing import Dict, List, Optional, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmfeatjnd.functional import (
    bits_per_element,
    dual_ascent,
    l2_magnitude,
    log_magnitude,
)
from mmfeatjnd.registry import MODELS

MAGNITUDES = ('l2', 'log', 'rate')


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
        discrepancy (dict, optional): Config of D_t. Defaults to None: KL to
            the clean prediction (``PredictionDivergence``) for classifiers
            and segmentors, ``PseudoGroundTruth`` for detectors.
        magnitude (str): M: 'l2' (the paper's example), 'log' (mean log
            magnitude relative to the RMS of the channel), or 'rate' (minus
            the bits per element of the quantizer). Defaults to 'log'.
        magnitude_weight (float): w. Defaults to 0.01.
        tolerance (float): epsilon, in the unit of the discrepancy: nats for
            ``PredictionDivergence``, a relative rise of the loss for
            ``PseudoGroundTruth`` and ``Annotation``. Defaults to 0.
        multiplier (float): lambda, or where its adaptation begins. Defaults
            to 1.0.
        adapt (float, optional): Rate of the dual ascent on lambda. Defaults
            to None: lambda is fixed.
        strength (Sequence[float], optional): (low, high): every image's
            distortion is scaled to an NRMSE drawn uniformly from this range,
            the way it will be tested, and M only rewards how evenly it is
            spread. None: the estimator decides how strong it is, and M
            rewards that too; give w a value near 1 then. Defaults to
            (0.25, 1.5).
        quantizer (dict, optional): Config of a
            :class:`QuantizationSurrogate`: the features are quantized instead
            of distorted. Needs an estimator in envelope mode and
            strength=None. Defaults to None.
    """

    def __init__(self,
                 discrepancy: Optional[dict] = None,
                 magnitude: str = 'log',
                 magnitude_weight: float = 0.01,
                 tolerance: float = 0.0,
                 multiplier: float = 1.0,
                 adapt: Optional[float] = None,
                 strength: Optional[Sequence[float]] = (0.25, 1.5),
                 quantizer: Optional[dict] = None) -> None:
        super().__init__()
        if magnitude not in MAGNITUDES:
            raise ValueError(f'FeatJNDLoss: magnitude must be one of '
                             f'{MAGNITUDES}, but got {magnitude!r}')
        if tolerance < 0 or (adapt is not None and tolerance == 0):
            raise ValueError('FeatJNDLoss: tolerance must be >= 0, and > 0 '
                             f'with adapt, but got {tolerance}')
        if strength is not None and adapt is not None:
            raise ValueError('FeatJNDLoss: at a given strength no multiplier '
                             'can hold the tolerance. Use strength=None with '
                             'adapt.')
        if strength is not None and not 0 < strength[0] <= strength[1]:
            raise ValueError('FeatJNDLoss: strength must be (low, high) with '
                             f'0 < low <= high, but got {strength}')
        if strength is not None and magnitude == 'l2':
            raise ValueError("FeatJNDLoss: magnitude='l2' is constant at a "
                             "given strength. Use magnitude='log' or "
                             'strength=None.')
        if quantizer is not None and strength is not None:
            raise ValueError('FeatJNDLoss: a quantizer decides the strength '
                             'itself. Use strength=None.')
        if magnitude == 'rate' and quantizer is None:
            raise ValueError("FeatJNDLoss: magnitude='rate' needs the "
                             'quantizer whose bits it counts: quantizer=dict('
                             "type='mmfeatjnd.QuantizationSurrogate').")
        self.quantizer = (
            MODELS.build(quantizer) if quantizer is not None else None)
        self.discrepancy = (
            MODELS.build(discrepancy) if discrepancy is not None else None)
        self.magnitude = magnitude
        self.magnitude_weight = magnitude_weight
        self.tolerance = tolerance
        self.adapt = adapt
        self.strength = strength
        self.register_buffer('multiplier', torch.tensor(float(multiplier)))

    def _magnitude(self, delta: Tensor, feature: Tensor,
                   channel_rms: Tensor) -> Tensor:
        if self.magnitude == 'l2':
            return l2_magnitude(delta, feature)
        return log_magnitude(delta, channel_rms)

    def forward(self, discrepancy: Tensor, deltas: List[Tensor],
                features: List[Tensor],
                channel_rms: List[Tensor]) -> Dict[str, Tensor]:
        """Weigh the discrepancy of a batch against its magnitude.

        Args:
            discrepancy (Tensor): D_t of the batch, a scalar with gradient.
            deltas (list[Tensor]): What M is measured on, one for each level
                and size of images: the distortion (signed), the envelope, or
                the bits (B,) of each image ('rate').
            features (list[Tensor]): The clean features.
            channel_rms (list[Tensor]): Broadcastable to them.

        Returns:
            dict: ``loss_jnd_discrepancy`` and ``loss_jnd_magnitude``, to be
            summed and minimised, and for the log ``jnd_discrepancy`` (D_t),
            ``jnd_magnitude`` (M) and ``jnd_multiplier`` (lambda).
        """
        if not features:  # no region in the whole batch
            magnitude = torch.zeros_like(discrepancy)
        elif self.magnitude == 'rate':
            magnitude = -bits_per_element(deltas, features)
        else:
            # levels, and images of several sizes
            total = sum(len(f) for f in features)
            magnitude = sum(
                self._magnitude(*part) * (len(part[1]) / total)
                for part in zip(deltas, features, channel_rms))
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
