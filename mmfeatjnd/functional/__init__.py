"""Pure functions on tensors: no registry, no runner, no host."""
from .discrepancy import cross_entropy, kl_divergence
from .distortion import (
    DETERMINISTIC,
    DISTORTIONS,
    NEEDS_JND,
    NEEDS_SENSITIVITY,
    Level,
)
from .dual import dual_ascent
from .layout import channel_dim, check_layout, from_tokens, to_tokens
from .magnitude import l2_magnitude, log_magnitude
from .noise import (
    gaussian_noise,
    image_keys,
    random_permutation,
    uniform_noise,
)
from .strength import DEFINITIONS, nrmse, participation_ratio, scale_to_nrmse

__all__ = [
    'DEFINITIONS', 'DETERMINISTIC', 'DISTORTIONS', 'Level', 'NEEDS_JND',
    'NEEDS_SENSITIVITY', 'channel_dim', 'check_layout', 'cross_entropy',
    'dual_ascent', 'from_tokens', 'gaussian_noise', 'image_keys',
    'kl_divergence', 'l2_magnitude', 'log_magnitude', 'nrmse',
    'participation_ratio', 'random_permutation', 'scale_to_nrmse',
    'to_tokens', 'uniform_noise'
]
