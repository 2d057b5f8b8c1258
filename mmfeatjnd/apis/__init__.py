from .curve import Bench, measure_curve
from .dmv_jnd import (
    HOMOGENEITY,
    DMVJNDSetting,
    dmv_jnd_runner,
    measure_dmv_jnd,
)
from .dmv_jnd_codec import measure_dmv_jnd_codec
from .estimator_file import (
    host_hash,
    load_estimator,
    read_estimator,
    save_estimator,
)
from .rate import measure_rates
from .training import build_model, train_once, trained_checkpoint

__all__ = [
    'DMVJNDSetting', 'HOMOGENEITY', 'Bench', 'build_model', 'dmv_jnd_runner',
    'host_hash', 'load_estimator', 'measure_curve', 'measure_dmv_jnd',
    'measure_dmv_jnd_codec', 'measure_rates', 'read_estimator',
    'save_estimator', 'train_once', 'trained_checkpoint'
]
