"""Real bitstreams of quantized features."""
from .bitstream import (
    QuantizedLevel,
    decode_image,
    describe,
    encode_batch,
    encode_image,
)
from .entropy_coder import BitstreamError

__all__ = [
    'BitstreamError', 'QuantizedLevel', 'decode_image', 'describe',
    'encode_batch', 'encode_image'
]
