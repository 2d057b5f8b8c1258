"""Real bitstreams of quantized features."""
from .bitstream import (
    QuantizedLevel,
    decode_image,
    describe,
    encode_batch,
    encode_image,
)
from .entropy_coder import BitstreamError
from .image_codec import decode_images, encode_images

__all__ = [
    'BitstreamError', 'QuantizedLevel', 'decode_image', 'decode_images',
    'describe', 'encode_batch', 'encode_image', 'encode_images'
]
