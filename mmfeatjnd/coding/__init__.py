"""Real bitstreams of quantized features."""
from .bitstream import (
    BitstreamError,
    QuantizedLevel,
    decode_image,
    describe,
    encode_batch,
    encode_image,
)

__all__ = [
    'BitstreamError', 'QuantizedLevel', 'decode_image', 'describe',
    'encode_batch', 'encode_image'
]
