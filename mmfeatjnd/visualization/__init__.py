from .dmv_jnd import draw_training
from .tolerance import ToleranceRecorder, draw_tolerance

__all__ = ['ToleranceRecorder', 'draw_tolerance', 'draw_training']
