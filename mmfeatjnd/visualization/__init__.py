from .dmv_jnd import draw_training
from .heat_map import draw_heat_maps, show_heat_maps
from .instances import draw_instances

__all__ = [
    'draw_heat_maps', 'draw_instances', 'draw_training', 'show_heat_maps'
]
