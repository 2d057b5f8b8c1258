"""Pictures through a picture codec: what features are compared with."""
import io
from typing import Optional

import numpy as np

from mmfeatjnd.registry import TRANSFORMS

#: Names of the codecs, as Pillow has them.
FORMATS = ('jpeg', 'webp', 'avif')


@TRANSFORMS.register_module()
class Recompress:
    """Encode the picture, count its bytes, and go on with what is decoded.

    Files are those of Pillow with its defaults, but for chroma of full
    resolution in JPEG above a quality of 90, and for AVIF's speed. Adds
    ``coded_bytes`` to the results.

    Args:
        format (str): 'jpeg', 'webp' or 'avif'.
        quality (int): 1 to 100; of WebP and AVIF 0 to 100.
        speed (int): AVIF's, 0 to 10: less takes longer and fewer bytes.
            Defaults to 6.

    Example:
        >>> pixels = np.zeros((8, 8, 3), np.uint8)
        >>> found = Recompress('webp', 80)(dict(img=pixels))
        >>> found['img'].shape, found['coded_bytes'] < 100
        ((8, 8, 3), True)
    """

    def __init__(self,
                 format: str,
                 quality: int,
                 speed: Optional[int] = 6) -> None:
        if format not in FORMATS:
            raise ValueError(f'format must be one of {FORMATS}, but got '
                             f'{format!r}')
        if not 0 <= quality <= 100:
            raise ValueError(f'quality must be from 0 to 100, but got '
                             f'{quality}')
        self.format = format
        self.quality = quality
        self.speed = speed

    def __call__(self, results: dict) -> dict:
        """Edit ``img``, (H, W, 3), 8 bits, in the order BGR."""
        from PIL import Image
        picture = Image.fromarray(
            np.ascontiguousarray(results['img'][..., ::-1]))
        options = dict(quality=self.quality)
        if self.format == 'avif':
            options['speed'] = self.speed
        if self.format == 'jpeg':
            options['optimize'] = True
            options['subsampling'] = 0 if self.quality > 90 else 2
        file = io.BytesIO()
        picture.save(file, self.format, **options)
        results['coded_bytes'] = file.tell()
        file.seek(0)
        decoded = np.asarray(Image.open(file).convert('RGB'))
        results['img'] = np.ascontiguousarray(decoded[..., ::-1])
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(format={self.format!r}, '
                f'quality={self.quality})')
