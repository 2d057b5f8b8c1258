"""Pure functions on tensors: no registry, no runner, no host."""
from .allocate import (
    clip_range,
    clip_steps,
    gradient_log_steps,
    jnd_log_steps,
    jnd_rounding,
    range_log_steps,
    uniform_log_steps,
    water_filling_steps,
)
from .budget import bisect_scale, scale_to_modelled_noise
from .discrepancy import cross_entropy, kl_divergence
from .distortion import (
    DETERMINISTIC,
    DISTORTIONS,
    NEEDS_JND,
    NEEDS_SENSITIVITY,
    Level,
)
from .dual import dual_ascent
from .entropy import (
    Tails,
    code_length,
    empirical_entropy,
    fit_tails,
    probabilities,
    soft_code_length,
)
from .fused import quantize_fused
from .layout import channel_dim, check_layout, from_tokens, to_tokens
from .magnitude import l2_magnitude, log_magnitude, rate
from .noise import (
    gaussian_noise,
    image_keys,
    random_permutation,
    shuffle_tokens,
    uniform_noise,
)
from .quantize import (
    GRANULARITIES,
    Steps,
    additive_noise,
    dequantize,
    make_steps,
    modelled_noise,
    quantize,
    quantize_dequantize,
    saturate,
    straight_through,
)
from .strength import (
    DEFINITIONS,
    nrmse,
    participation_ratio,
    rms,
    scale_to_nrmse,
)

__all__ = [
    'DEFINITIONS',
    'DETERMINISTIC',
    'DISTORTIONS',
    'GRANULARITIES',
    'Level',
    'NEEDS_JND',
    'NEEDS_SENSITIVITY',
    'Steps',
    'Tails',
    'additive_noise',
    'bisect_scale',
    'channel_dim',
    'check_layout',
    'clip_range',
    'clip_steps',
    'code_length',
    'cross_entropy',
    'dequantize',
    'dual_ascent',
    'empirical_entropy',
    'fit_tails',
    'from_tokens',
    'gaussian_noise',
    'gradient_log_steps',
    'image_keys',
    'jnd_log_steps',
    'jnd_rounding',
    'kl_divergence',
    'l2_magnitude',
    'log_magnitude',
    'make_steps',
    'modelled_noise',
    'nrmse',
    'participation_ratio',
    'probabilities',
    'quantize',
    'quantize_dequantize',
    'quantize_fused',
    'random_permutation',
    'range_log_steps',
    'rate',
    'rms',
    'saturate',
    'scale_to_modelled_noise',
    'scale_to_nrmse',
    'shuffle_tokens',
    'soft_code_length',
    'straight_through',
    'to_tokens',
    'uniform_log_steps',
    'uniform_noise',
    'water_filling_steps',
]
