"""Binary symbols with given probabilities to bytes and back.

A thin layer over the range coder of ``constriction`` (Bamler, arXiv
2201.01741), which codes whole arrays.
"""
import struct
import zlib

import numpy as np

#: Length of the checksum that :func:`seal` appends.
SEAL_BYTES = 4


class BitstreamError(ValueError):
    """Error of bytes that are not what an encoder of this package wrote.

    Example:
        >>> from mmfeatjnd.coding import decode_image
        >>> decode_image(b'\\x89PNG')
        Traceback (most recent call last):
        mmfeatjnd.coding.entropy_coder.BitstreamError: not a feature stream: \
it does not begin with FJND
    """


def seal(data: bytes) -> bytes:
    """Data with a checksum behind: CRC-32 of everything before, u32."""
    return data + struct.pack('<I', zlib.crc32(data))


def check_seal(data: bytes) -> None:
    """Raise a :class:`BitstreamError` unless :func:`seal` wrote this."""
    # without copies: data may be large, and not ours
    if struct.pack('<I', zlib.crc32(
            memoryview(data)[:-SEAL_BYTES])) != data[-SEAL_BYTES:]:
        raise BitstreamError('corrupted: the checksum does not match')


def _bernoulli():
    try:
        import constriction
    except ImportError as error:
        raise ImportError('Real bitstreams need the package constriction: '
                          "pip install 'constriction>=0.4'") from error
    return constriction.stream.queue, constriction.stream.model.Bernoulli(
        perfect=False)


class BitWriter:
    """Writer of binary symbols; :meth:`finish` returns the bytes."""

    def __init__(self) -> None:
        queue, self._model = _bernoulli()
        self._coder = queue.RangeEncoder()

    def write(self, bits: np.ndarray, ones: np.ndarray) -> None:
        """Append symbols.

        Args:
            bits (np.ndarray): 0 or 1, any shape.
            ones (np.ndarray): Float32, the same shape: probability of a 1.
        """
        if bits.size:
            self._coder.encode(
                np.ascontiguousarray(bits, np.int32).ravel(), self._model,
                np.ascontiguousarray(ones, np.float32).ravel())

    def write_number(self, value: int, width: int) -> None:
        """Append an unsigned number of ``width`` bits."""
        self.write(value >> np.arange(width) & 1,
                   np.full(width, 0.5, np.float32))

    def finish(self) -> bytes:
        """All symbols; a multiple of four bytes, little-endian."""
        return self._coder.get_compressed().astype('<u4').tobytes()


class BitReader:
    """Reader of what :class:`BitWriter` wrote, with the same probabilities.

    Raises:
        BitstreamError: The bytes cannot come from :class:`BitWriter`.
    """

    def __init__(self, data: bytes) -> None:
        queue, self._model = _bernoulli()
        if len(data) % 4:
            raise BitstreamError('corrupted payload: its length is no '
                                 'multiple of 4')
        words = np.frombuffer(data, '<u4').astype(np.uint32)
        self._coder = queue.RangeDecoder(words)

    def read(self, ones: np.ndarray) -> np.ndarray:
        """The next symbols, int32, 0 or 1; see :meth:`BitWriter.write`."""
        if not ones.size:
            return np.zeros(ones.shape, np.int32)
        flat = np.ascontiguousarray(ones, np.float32).ravel()
        try:
            bits = self._coder.decode(self._model, flat)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f'corrupted payload: {error}') from error
        return bits.reshape(ones.shape)

    def read_number(self, width: int) -> int:
        """The next unsigned number of ``width`` bits."""
        bits = self.read(np.full(width, 0.5, np.float32))
        return int((bits << np.arange(width)).sum())

    def exhausted(self) -> bool:
        """Whether all bytes may have been used; False proves garbage."""
        return self._coder.maybe_exhausted()
