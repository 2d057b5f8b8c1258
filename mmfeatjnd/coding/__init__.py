"""Real bitstreams of quantized features."""
from .bitstream import (
    decode_image,
    encode_batch,
    encode_image,
    read_header,
)
from .entropy_coder import BitstreamError
from .image_codec import decode_images, encode_images

__all__ = [
    'BitstreamError', 'decode_image', 'decode_images', 'encode_batch',
    'encode_image', 'encode_images', 'read_header'
]
