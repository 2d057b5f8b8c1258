from .base_dmv_jnd_metric import BaseDMVJNDMetric
from .jnd_magnitude import JNDMagnitude
from .peak_snr import PeakSNR
from .relative_accuracy import RelativeAccuracy

__all__ = [
    'BaseDMVJNDMetric', 'JNDMagnitude', 'PeakSNR', 'RelativeAccuracy'
]
