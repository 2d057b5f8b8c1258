from .dmv_jnd import draw_curve, draw_training
from .tolerance import ToleranceRecorder, draw_tolerance

__all__ = [
    'ToleranceRecorder', 'draw_curve', 'draw_tolerance', 'draw_training'
]
