from .tolerance import ToleranceRecorder

__all__ = ['ToleranceRecorder']
