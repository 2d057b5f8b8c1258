from .dmv_jnd import draw_curve, draw_training
from .tolerance import ToleranceRecorder

__all__ = ['ToleranceRecorder', 'draw_curve', 'draw_training']
