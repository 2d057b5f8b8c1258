"""Real bitstreams of quantized features."""
from .bitstream import (
    decode_image,
    encode_batch,
    encode_image,
    read_header,
)
from .entropy_coder import BitstreamError
from .image_codec import decode_images, encode_images
from .plan_stream import decode_planned, encode_planned, read_plan_header

__all__ = [
    'BitstreamError', 'decode_image', 'decode_images', 'decode_planned',
    'encode_batch', 'encode_image', 'encode_images', 'encode_planned',
    'read_header', 'read_plan_header'
]
