import math

import numpy as np
import pytest

from mmfeatjnd.coding.entropy_coder import (
    BitReader,
    BitstreamError,
    BitWriter,
)


def _symbols(n, seed=0):
    generator = np.random.default_rng(seed)
    ones = (generator.integers(1, 65536, n) / 65536).astype(np.float32)
    return (generator.random(n) < ones).astype(np.int32), ones


def test_round_trip_of_bits_and_numbers():
    bits, ones = _symbols(5000)
    writer = BitWriter()
    writer.write_number(1234, 11)
    writer.write(bits[:3000], ones[:3000])
    writer.write(bits[:0], ones[:0])
    writer.write_number(0, 1)
    writer.write(bits[3000:].reshape(2, -1), ones[3000:].reshape(2, -1))
    reader = BitReader(writer.finish())
    assert reader.read_number(11) == 1234
    np.testing.assert_array_equal(reader.read(ones[:3000]), bits[:3000])
    assert reader.read(ones[:0]).shape == (0, )
    assert reader.read_number(1) == 0
    np.testing.assert_array_equal(
        reader.read(ones[3000:].reshape(2, -1)), bits[3000:].reshape(2, -1))
    assert reader.exhausted()


def test_improbable_symbols_survive():
    ones = np.tile(np.float32([1, 65535]) / 65536, 500).astype(np.float32)
    bits = np.tile(np.int32([1, 0]), 500)
    writer = BitWriter()
    writer.write(bits, ones)
    data = writer.finish()
    np.testing.assert_array_equal(BitReader(data).read(ones), bits)
    assert len(data) * 8 == pytest.approx(16 * 1000, rel=0.01)


@pytest.mark.parametrize('p', [1 / 65536, 0.01, 0.2, 0.5, 0.99])
def test_length_is_the_information(p):
    n = 200000
    bits = (np.random.default_rng(1).random(n) < p).astype(np.int32)
    ones = np.full(n, p, np.float32)
    writer = BitWriter()
    writer.write(bits, ones)
    k = int(bits.sum())
    information = -k * math.log2(p) - (n - k) * math.log2(1 - p)
    assert len(writer.finish()) * 8 == pytest.approx(
        information, rel=1e-3, abs=64)


def test_left_over_bytes_are_noticed():
    writer = BitWriter()
    writer.write(*_symbols(100))
    reader = BitReader(writer.finish() + b'\x12\x34\x56\x78' * 4)
    reader.read(_symbols(100)[1])
    assert not reader.exhausted()


def test_length_that_is_no_multiple_of_4():
    with pytest.raises(BitstreamError, match='multiple of 4'):
        BitReader(b'abcde')
