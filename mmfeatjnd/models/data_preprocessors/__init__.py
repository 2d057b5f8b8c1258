from .dmv_jnd_preprocessor import (
    DMVJNDPreprocessorMixin,
    build_dmv_jnd_preprocessor,
)
from .pixel_distortion import PixelDistortion

__all__ = [
    'DMVJNDPreprocessorMixin', 'PixelDistortion', 'build_dmv_jnd_preprocessor'
]
