"""Binary symbols with given probabilities to bytes and back.

A thin layer over the range coder of ``constriction`` (Bamler, arXiv
2201.01741), which codes whole arrays.
"""
import numpy as np


def _bernoulli():
    try:
        import constriction
    except ImportError as error:
        raise ImportError('Real bitstreams need the package constriction: '
                          "pip install 'constriction>=0.4'") from error
    return constriction.stream.queue, constriction.stream.model.Bernoulli(
        perfect=False)


class BitWriter:
    """Collects binary symbols; :meth:`finish` returns the bytes."""

    def __init__(self) -> None:
        queue, self._model = _bernoulli()
        self._coder = queue.RangeEncoder()

    def write(self, bits: np.ndarray, ones: np.ndarray) -> None:
        """Append symbols.

        Args:
            bits (np.ndarray): (n,), 0 or 1.
            ones (np.ndarray): (n,), float32: probability of a 1.
        """
        if bits.size:
            self._coder.encode(
                np.ascontiguousarray(bits, np.int32), self._model,
                np.ascontiguousarray(ones, np.float32))

    def write_number(self, value: int, width: int) -> None:
        """Append an unsigned number of ``width`` bits."""
        bits = np.array([value >> i & 1 for i in range(width)], np.int32)
        self.write(bits, np.full(width, 0.5, np.float32))

    def finish(self) -> bytes:
        """All symbols; a multiple of four bytes, little-endian."""
        return self._coder.get_compressed().astype('<u4').tobytes()


class BitReader:
    """Reads what :class:`BitWriter` wrote, with the same probabilities."""

    def __init__(self, data: bytes) -> None:
        queue, self._model = _bernoulli()
        words = np.frombuffer(data, '<u4').astype(np.uint32)
        self._coder = queue.RangeDecoder(words)

    def read(self, ones: np.ndarray) -> np.ndarray:
        """The next symbols, (n,), int32; see :meth:`BitWriter.write`."""
        if not ones.size:
            return np.zeros(0, np.int32)
        return self._coder.decode(self._model,
                                  np.ascontiguousarray(ones, np.float32))

    def read_number(self, width: int) -> int:
        """The next unsigned number of ``width`` bits."""
        bits = self.read(np.full(width, 0.5, np.float32))
        return sum(int(b) << i for i, b in enumerate(bits))

    def exhausted(self) -> bool:
        """Whether all bytes may have been used; False proves garbage."""
        return self._coder.maybe_exhausted()


