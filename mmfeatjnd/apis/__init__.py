from .curve import Bench, measure_curve
from .estimator_file import host_hash, load_estimator, save_estimator
from .rate import measure_rates
from .training import build_model, train_once, trained_checkpoint

__all__ = [
    'Bench', 'build_model', 'host_hash', 'load_estimator', 'measure_curve',
    'measure_rates',
    'save_estimator', 'train_once', 'trained_checkpoint'
]
