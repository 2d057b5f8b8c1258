from .curve import measure_curve
from .estimator_file import host_hash, load_estimator, save_estimator
from .training import build_model, train_once, trained_checkpoint

__all__ = [
    'build_model', 'host_hash', 'load_estimator', 'measure_curve',
    'save_estimator', 'train_once', 'trained_checkpoint'
]
