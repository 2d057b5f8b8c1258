"""The symbols of classes as bytes."""
import numpy as np
import pytest

from mmfeatjnd.coding.entropy_coder import (
    BitstreamError,
    SymbolReader,
    SymbolWriter,
)


def round_trip(symbols, index, centre, rectified=False):
    writer = SymbolWriter()
    writer.write(symbols, index, centre, rectified)
    data = writer.finish()
    reader = SymbolReader(data)
    assert np.array_equal(reader.read(index, centre, rectified), symbols)
    assert reader.exhausted()
    return data


@pytest.mark.parametrize('rectified', [False, True])
def test_round_trip_of_many_classes(rectified):
    generator = np.random.default_rng(0)
    index = generator.integers(-18, 61, 5000)
    centre = generator.integers(-30, 30, 5000)
    symbols = np.round(generator.logistic(centre / 4, 1) * 2**(index / 4))
    symbols = symbols.clip(0 if rectified else -32767, 32767).astype(int)
    round_trip(symbols, index, centre, rectified)


@pytest.mark.parametrize('rectified', [False, True])
@pytest.mark.parametrize('index', [-18, 0, 15, 16, 47, 60])
@pytest.mark.parametrize('centre', [-2047, -9, 0, 9, 2047])
def test_any_symbol_in_any_class(index, centre, rectified):
    """Also what nobody expects."""
    symbols = np.array([0, 1, 2, 3, 17, 1000, 32766, 32767])
    if not rectified:
        symbols = np.concatenate([symbols, -symbols])
    full = np.full(len(symbols), index), np.full(len(symbols), centre)
    round_trip(symbols, *full, rectified)


def test_no_symbols():
    nothing = np.zeros(0, int)
    assert round_trip(nothing, nothing, nothing) == b''


def test_numbers():
    writer = SymbolWriter()
    for value, width in ((5, 3), (0, 1), (65535, 16), (1, 1)):
        writer.write_number(value, width)
    reader = SymbolReader(writer.finish())
    assert [reader.read_number(n) for n in (3, 1, 16, 1)] == [5, 0, 65535, 1]


@pytest.mark.parametrize('index', [-6, 0, 8, 30])
def test_length_is_the_information(index):
    generator = np.random.default_rng(1)
    n, ratio = 20000, 2**(index / 4)
    symbols = np.round(generator.logistic(0, ratio, n)).astype(int)

    def cdf(x):
        return 1 / (1 + np.exp(-x / ratio))

    bits = -np.log2(cdf(symbols + 0.5) - cdf(symbols - 0.5)).sum()
    data = round_trip(symbols, np.full(n, index), np.zeros(n, int))
    assert 8 * len(data) == pytest.approx(bits, rel=2e-3, abs=16)


def test_what_a_stream_wastes_at_its_end():
    """Features may take a hundred bytes."""
    wasted = []
    for n in range(20, 120):
        symbols = np.random.default_rng(n).integers(-1, 2, n)
        full = np.zeros(n, int)
        p = np.where(symbols == 0, 0.24492, 0.19683)
        wasted.append(
            len(round_trip(symbols, full, full)) + np.log2(p).sum() / 8)
    assert -0.1 < min(wasted) and np.mean(wasted) < 2.2


def test_left_over_bytes_are_noticed():
    index = centre = np.zeros(30, int)
    data = round_trip(np.ones(30, int), index, centre)
    reader = SymbolReader(data + b'\1' * 20)
    reader.read(index, centre)
    assert not reader.exhausted()


def test_impossible_symbols():
    """Garbage may announce what no encoder writes."""
    refused = 0
    for i in range(300):
        data = np.random.default_rng(i).bytes(40)
        reader = SymbolReader(b'\xff' * 3 + data)
        try:
            found = reader.read(np.full(9, -18), np.zeros(9, int))
        except BitstreamError:
            refused += 1
        else:
            assert np.abs(found).max() <= 32767
    assert refused
