from .dmv_jnd import draw_training
from .heat_map import JNDMapRecorder, draw_heat_maps
from .instances import draw_instances

__all__ = [
    'JNDMapRecorder', 'draw_heat_maps', 'draw_instances', 'draw_training'
]
