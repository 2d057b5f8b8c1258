from .picture_folder import PictureFolder
from .recompress import Recompress
from .shapes import generate_shapes

__all__ = ['PictureFolder', 'Recompress', 'generate_shapes']
