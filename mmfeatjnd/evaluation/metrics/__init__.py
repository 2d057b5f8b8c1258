from .dmv_jnd_metrics import JNDMagnitude, PeakSNR, RelativeAccuracy

__all__ = ['JNDMagnitude', 'PeakSNR', 'RelativeAccuracy']
