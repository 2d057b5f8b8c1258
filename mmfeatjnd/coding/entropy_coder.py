"""Symbols of the entropy model's classes to bytes and back.

A thin layer over the range coder of ``constriction`` (Bamler, arXiv
2201.01741), which codes whole arrays: all symbols of a class at once.
"""
import struct
import zlib
from typing import Iterator, Tuple

import numpy as np

from mmfeatjnd.functional.entropy import Table, class_table
from mmfeatjnd.functional.symbols import MAX_SYMBOL

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


def _constriction():
    try:
        import constriction
    except ImportError as error:
        raise ImportError('Real bitstreams need the package constriction: '
                          "pip install 'constriction>=0.4'") from error
    return constriction.stream


#: Bit lengths of what lies beyond the end of a table.
_LENGTHS = (2 * MAX_SYMBOL).bit_length() + 1


def _groups(index: np.ndarray, centre: np.ndarray,
            rectified: bool) -> Iterator[Tuple[np.ndarray, Table]]:
    """Positions of the symbols of every class, with its table; in an order
    that both sides know."""
    # in few bytes: a file may claim many symbols
    key = (index.astype(np.int32) << 16) + centre.astype(np.int32)
    order = np.argsort(key, kind='stable').astype(np.int32)
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=key[:1] - 1))
    for positions, value in zip(np.split(order, starts[1:]), key[starts]):
        found = int(value + (1 << 15) >> 16)
        yield positions, class_table(
            found, int(value - (found << 16)), rectified)


def _zeros(values: np.ndarray, table: Table) -> np.ndarray:
    """Where the symbol 0 is that is in no bin."""
    return (values == 0) & table.zero


class SymbolWriter:
    """Writer of symbols; :meth:`finish` returns the bytes."""

    def __init__(self) -> None:
        stream = _constriction()
        self._models = stream.model
        self._coder = stream.queue.RangeEncoder()

    def write(self, symbols: np.ndarray, index: np.ndarray,
              centre: np.ndarray, rectified: bool = False) -> None:
        """Append symbols.

        Args:
            symbols (np.ndarray): (N,), integers within +-32767.
            index (np.ndarray): (N,), the class of each: quarter octaves of
                s / Delta, see :mod:`mmfeatjnd.functional.entropy`.
            centre (np.ndarray): (N,), quarters of s.
            rectified (bool): Nothing is below 0. Defaults to False.
        """
        beyond = []
        for positions, table in _groups(index, centre, rectified):
            q = symbols[positions].astype(np.int64)
            value = q - table.shift
            before = 1 + table.zero
            entry = (value >> table.bits) - table.first + before
            last = len(table.probabilities) - 1
            low, high = entry < before, entry >= last
            beyond += [before - 1 - entry[low & ~_zeros(q, table)],
                       entry[high] - last]
            entry = np.where(low, 0, np.where(high, last, entry))
            entry[_zeros(q, table)] = 1
            self._encode(entry, self._models.Categorical(
                table.probabilities, perfect=False))
            if table.bits:
                place = value[~_zeros(q, table)] & (1 << table.bits) - 1
                self._write_uniform(place, 1 << table.bits)
        if beyond:
            self._write_beyond(np.concatenate(beyond) + 1)

    def _write_beyond(self, numbers: np.ndarray) -> None:
        """Numbers > 0 by their number of bits, and all bits but the first."""
        lengths = np.frexp(numbers)[1]
        self._write_uniform(lengths, _LENGTHS)
        for n in range(2, _LENGTHS):
            self._write_uniform(
                numbers[lengths == n] - (1 << n - 1), 1 << n - 1)

    def _write_uniform(self, values: np.ndarray, size: int) -> None:
        self._encode(values, self._models.Uniform(size))

    def _encode(self, values: np.ndarray, model) -> None:
        if values.size:
            self._coder.encode(np.ascontiguousarray(values, np.int32), model)

    def write_number(self, value: int, width: int) -> None:
        """Append an unsigned number of ``width`` bits, 1 to 16."""
        self._write_uniform(np.array([value]), 1 << width)

    def finish(self) -> bytes:
        """The bytes of all symbols: words of 32 bits, the highest byte first,
        without the zeros at the end."""
        words = self._coder.get_compressed().astype('>u4')
        return words.tobytes().rstrip(b'\0')


class SymbolReader:
    """Reader of what :class:`SymbolWriter` wrote, with the same classes.

    Args:
        data (bytes): The bytes.
    """

    def __init__(self, data: bytes) -> None:
        stream = _constriction()
        self._models = stream.model
        words = np.frombuffer(data + bytes(-len(data) % 4), '>u4')
        self._coder = stream.queue.RangeDecoder(words.astype(np.uint32))

    def read(self, index: np.ndarray, centre: np.ndarray,
             rectified: bool = False) -> np.ndarray:
        """The next symbols, (N,), int32; see :meth:`SymbolWriter.write`.

        Raises:
            BitstreamError: The bytes cannot come from :class:`SymbolWriter`.
        """
        symbols = np.zeros(len(index), np.int32)
        found, counts = [], [0]
        for positions, table in _groups(index, centre, rectified):
            entry = self._decode(len(positions), self._models.Categorical(
                table.probabilities, perfect=False))
            last = len(table.probabilities) - 1
            zero, place = None, 0
            if table.zero:
                zero = entry == 1
            if table.bits:
                inside = slice(None) if zero is None else ~zero
                place = np.zeros_like(entry)
                place[inside] = self._read_uniform(
                    len(entry[inside]), 1 << table.bits)
            first = table.first - 1 - table.zero
            value = (entry + first << table.bits) + place + table.shift
            if zero is not None:
                value[zero] = 0
            symbols[positions] = value
            # beyond the table: told at the end
            for end, edge, sign in ((0, table.zero, -1), (last, last, 1)):
                at = np.flatnonzero(entry == end)
                counts.append(len(at))
                if len(at):
                    rest = place[at] if table.bits else 0
                    found.append((positions[at], edge, sign, rest, first,
                                  table))
        beyond = self._read_beyond(sum(counts)) - 1
        ends = iter(np.split(beyond, np.cumsum([len(x[0]) for x in found])))
        for (positions, edge, sign, rest, first, table), by in zip(found,
                                                                   ends):
            value = edge + sign * by + first << table.bits
            # where it fits in 32 bits, and where it is told below
            symbols[positions] = np.clip(value + rest + table.shift,
                                         -2 * MAX_SYMBOL, 2 * MAX_SYMBOL)
        if max(-symbols.min(initial=0), symbols.max(initial=0)) > MAX_SYMBOL:
            raise BitstreamError('corrupted payload: impossible symbols')
        return symbols

    def _read_beyond(self, count: int) -> np.ndarray:
        lengths = self._read_uniform(count, _LENGTHS)
        if not lengths.all():
            raise BitstreamError('corrupted payload: impossible symbols')
        numbers = np.int64(1) << lengths - 1
        for n in range(2, _LENGTHS):
            at = lengths == n
            numbers[at] += self._read_uniform(int(at.sum()), 1 << n - 1)
        return numbers

    def _read_uniform(self, count: int, size: int) -> np.ndarray:
        return self._decode(count, self._models.Uniform(size))

    def _decode(self, count: int, model) -> np.ndarray:
        if not count:
            return np.zeros(0, np.int32)
        try:
            return self._coder.decode(model, count).astype(
                np.int32, copy=False)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f'corrupted payload: {error}') from error

    def read_number(self, width: int) -> int:
        """The next unsigned number of ``width`` bits."""
        return int(self._read_uniform(1, 1 << width)[0])

    def exhausted(self) -> bool:
        """Whether all bytes may have been used; False proves garbage."""
        return self._coder.maybe_exhausted()
