from .dmv_jnd_preprocessor import DMVJNDPreprocessor, DMVJNDPreprocessorMixin
from .pixel_distortion import PixelDistortion, load_dmv_jnd

__all__ = [
    'DMVJNDPreprocessor', 'DMVJNDPreprocessorMixin', 'PixelDistortion',
    'load_dmv_jnd'
]
