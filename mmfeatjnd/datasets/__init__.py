from .picture_folder import PictureFolder
from .shapes import generate_shapes

__all__ = ['PictureFolder', 'generate_shapes']
