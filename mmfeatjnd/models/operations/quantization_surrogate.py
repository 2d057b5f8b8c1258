"""A differentiable quantizer, to train the estimator for the real one."""
from typing import Sequence, Tuple

from torch import Tensor

from mmfeatjnd.functional import (
    additive_noise,
    bits_per_element,
    jnd_log_steps,
    jnd_rounding,
    make_steps,
    soft_code_length,
    straight_through,
)
from mmfeatjnd.functional.steps import check_granularity
from mmfeatjnd.models.run import Visit
from mmfeatjnd.registry import MODELS
from .base_training import BaseTraining, Kept

MODES = ('straight-through', 'noise')


@MODELS.register_module()
class QuantizationSurrogate(BaseTraining):
    """Quantizes with steps of twice the envelope, as the policy 'featjnd'
    with ``power=1`` does at scale 1, and lets gradients through. Ours.

    Args:
        mode (str): 'straight-through': the real symbols, with the gradient of
            a soft staircase; 'noise': uniform noise of one step instead of
            rounding. Defaults to 'straight-through'.
        granularity (str): Granularity of the policy that will use the
            estimator. Defaults to 'channel-token'.
        jnd_rounding (bool): Rounding of that policy; with 'noise' without
            effect on the features. Defaults to True.
        magnitude (str): M: 'log' or 'l2' of the envelope, or 'rate': minus
            the bits per element. Defaults to 'log'.
    """

    magnitudes = (*BaseTraining.magnitudes, 'rate')
    modes = ('envelope', )

    def __init__(self,
                 mode: str = 'straight-through',
                 granularity: str = 'channel-token',
                 jnd_rounding: bool = True,
                 magnitude: str = 'log') -> None:
        super().__init__(magnitude)
        if mode not in MODES:
            raise ValueError('QuantizationSurrogate: mode must be one of '
                             f'{MODES}, but got {mode!r}')
        check_granularity(granularity)
        self.mode = mode
        self.granularity = granularity
        self.jnd_rounding = jnd_rounding

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        envelope = visit.neck.estimator_of(level)(feature)
        value, bits = self.quantize(feature, envelope, visit.keys,
                                    visit.stream)
        self.keep(visit, level,
                  bits if self.magnitude_name == 'rate' else envelope,
                  feature)
        return value

    def magnitude(self, kept: Sequence[Kept]) -> Tensor:
        """M of a batch, see :meth:`BaseTraining.magnitude`."""
        if self.magnitude_name != 'rate':
            return super().magnitude(kept)
        bits, features, _ = zip(*kept)
        return -bits_per_element(bits, features)

    def quantize(self,
                 feature: Tensor,
                 envelope: Tensor,
                 keys: Tensor,
                 stream: int = 0) -> Tuple[Tensor, Tensor]:
        """Quantize one level.

        Args:
            feature (Tensor): The clean feature, (B, C, H, W), (B, N, C) or
                (B, C).
            envelope (Tensor): Envelope of the estimator, the same shape.
            keys (Tensor): (B,), int64, keys of the noise.
            stream (int): Stream of the noise. Defaults to 0.

        Returns:
            tuple[Tensor]: The dequantized feature, float32, and the bits of
            each image, (B,), both with a gradient to the envelope.
        """
        feature = feature.float()
        log_step = jnd_log_steps(envelope)
        steps = make_steps(log_step, self.granularity)
        step = steps.size(feature)
        rounding = 0.5
        if self.jnd_rounding:
            rounding = jnd_rounding(log_step, steps)
        magnitude = straight_through(feature.abs(), step, rounding)
        bits = soft_code_length(magnitude, feature, step)
        if self.mode == 'noise':
            return additive_noise(feature, step, keys, stream), bits
        return magnitude * step * feature.sign(), bits
