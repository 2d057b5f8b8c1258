from .curve import measure_curve
from .estimator_file import host_hash, load_estimator, save_estimator

__all__ = ['host_hash', 'load_estimator', 'measure_curve', 'save_estimator']
