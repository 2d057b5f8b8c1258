"""The operation that the estimators are trained by."""
from typing import List, Optional, Sequence

from torch import Tensor, nn

from mmfeatjnd.functional import scale_to_nrmse, uniform_noise
from mmfeatjnd.models.run import Visit

_STRENGTH_STREAM = 1 << 21


class TrainingPerturbation:
    """Adds the estimators' distortion, or quantizes by them.

    ``run.kept`` gets of every visit what the objective needs: what M is
    measured on, the features, and the RMS of their channels; see
    :class:`FeatJNDLoss`.

    Args:
        strength (Sequence[float], optional): (low, high): every image's
            distortion is scaled to an NRMSE drawn from this range. Defaults
            to None: the estimator decides.
        quantizer (nn.Module, optional): A :class:`QuantizationSurrogate`.
            Defaults to None.
        rewards_rate (bool): The magnitude is the quantizer's bits. Defaults
            to False.
    """

    def __init__(self,
                 strength: Optional[Sequence[float]] = None,
                 quantizer: Optional[nn.Module] = None,
                 rewards_rate: bool = False) -> None:
        self.strength = strength
        self.quantizer = quantizer
        self.rewards_rate = rewards_rate

    def begin(self, parts: List[Tensor], level: int, neck) -> None:
        """Once for a level of a batch, however many sizes its images have:
        the estimator follows the features, and waits for the other
        processes."""
        neck.estimator_of(level).follow(parts)

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        estimator = visit.neck.estimator_of(level)
        jnd_map = estimator(feature)

        def keep(magnitude: Tensor) -> None:
            visit.run.kept.append(
                (magnitude, feature, estimator.channel_rms(feature)))

        if self.quantizer is not None:
            value, bits = self.quantizer(feature, jnd_map, visit.keys,
                                         visit.stream)
            keep(bits if self.rewards_rate else jnd_map)
            return value
        delta = estimator.distortion(jnd_map, visit.keys, visit.stream)
        if self.strength is not None:
            low, high = self.strength
            unit = uniform_noise(visit.keys, (1, ), _STRENGTH_STREAM)[:, 0]
            target = low + (high - low) * (unit / 2 + 0.5)
            delta = scale_to_nrmse(delta, feature, target)
            # at a given strength M can only reward how it is spread
            jnd_map = scale_to_nrmse(jnd_map, feature, 1.0)
        keep(jnd_map)
        return feature.float() + delta
