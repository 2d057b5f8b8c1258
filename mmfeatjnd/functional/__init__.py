"""Pure functions on tensors: no registry, no runner, no host."""
from .allocate import (
    clip_cover,
    clip_range,
    clip_steps,
    gradient_log_steps,
    jnd_log_steps,
    jnd_rounding,
    range_log_steps,
    sensitivity_log_scale,
    uniform_log_steps,
    water_filling_steps,
)
from .budget import (
    bisect_scale,
    meets_target,
    scale_limits,
    scale_to_modelled_noise,
)
from .discrepancy import (
    binary_cross_entropy,
    binary_kl_divergence,
    cross_entropy,
    kl_divergence,
)
from .dual import dual_ascent
from .entropy import (
    code_length,
    empirical_entropy,
    fit_entropy_model,
    probabilities,
)
from .layout import (
    LAYOUTS,
    channel_dim,
    check_layout,
    from_channels_first,
    from_tokens,
    to_channels_first,
    to_tokens,
)
from .level import Level
from .magnitude import bits_per_element, l2_magnitude, log_magnitude
from .noise import (
    gaussian_noise,
    image_keys,
    random_permutation,
    shuffle_channels,
    shuffle_tokens,
    step_seed,
    uniform_noise,
    view_keys,
)
from .nrmse import (
    DEFINITIONS,
    nrmse,
    participation_ratio,
    rms,
    scale_to_nrmse,
)
from .quantize import Allocation, cast_to, dequantize, quantize
from .quantized import EntropyModel, QuantizedLevel
from .steps import GRANULARITIES, Steps, make_steps, modelled_noise
from .surrogate import additive_noise, soft_code_length, straight_through
from .symbols import saturated

__all__ = [
    'Allocation',
    'DEFINITIONS',
    'EntropyModel',
    'GRANULARITIES',
    'LAYOUTS',
    'Level',
    'QuantizedLevel',
    'Steps',
    'additive_noise',
    'binary_cross_entropy',
    'binary_kl_divergence',
    'bisect_scale',
    'bits_per_element',
    'cast_to',
    'channel_dim',
    'check_layout',
    'clip_cover',
    'clip_range',
    'clip_steps',
    'code_length',
    'cross_entropy',
    'dequantize',
    'dual_ascent',
    'empirical_entropy',
    'fit_entropy_model',
    'from_channels_first',
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
    'meets_target',
    'modelled_noise',
    'nrmse',
    'participation_ratio',
    'probabilities',
    'quantize',
    'random_permutation',
    'range_log_steps',
    'rms',
    'saturated',
    'scale_limits',
    'scale_to_modelled_noise',
    'scale_to_nrmse',
    'sensitivity_log_scale',
    'shuffle_channels',
    'shuffle_tokens',
    'soft_code_length',
    'step_seed',
    'straight_through',
    'to_channels_first',
    'to_tokens',
    'uniform_log_steps',
    'uniform_noise',
    'view_keys',
    'water_filling_steps',
]
