import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from mmfeatjnd.coding import (
    BitstreamError,
    decode_image,
    encode_batch,
    encode_image,
    read_header,
)
from mmfeatjnd.coding.body import decode_body, encode_bodies, varint
from mmfeatjnd.functional import (
    GRANULARITIES,
    Allocation,
    Steps,
    code_length,
    dequantize,
    fit_entropy_model,
    make_steps,
    quantize,
)

LAYOUTS = [(6, 5, 7), (30, 6), (40, )]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _item(dims=(6, 5, 7),
          granularity='channel-token',
          dtype=torch.float32,
          signed=True,
          scale=1.0,
          batch=1,
          seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *dims)
    feature = torch.empty(shape).exponential_(generator=generator)
    feature *= torch.rand(shape, generator=generator) < 0.6
    if signed:
        feature *= torch.randn(shape, generator=generator).sign()
    log_step = torch.randn(shape, generator=generator) * 0.5
    steps = make_steps(log_step, granularity).scaled(scale)
    quantized, _ = quantize(feature, Allocation(steps))
    return quantized._replace(dtype=dtype)


def _same(a, b):
    assert torch.equal(a.symbols, b.symbols)
    assert a.symbols.shape == b.symbols.shape
    assert a.dtype == b.dtype
    for name in Steps._fields:
        x, y = getattr(a.steps, name), getattr(b.steps, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert torch.equal(x.to(y.dtype), y) and x.shape == y.shape, name
    value = dequantize(b)
    assert value.dtype == a.dtype
    assert torch.equal(dequantize(a), value)
    # what it was coded with comes back, too
    for x, y in zip(fit_entropy_model(a).model, b.model):
        assert torch.equal(x, y)


def _sealed(data):
    return bytes(data) + struct.pack('<I', zlib.crc32(bytes(data)))


def _round_trip(*items):
    decoded = decode_image(encode_image(items))
    assert len(decoded) == len(items)
    for a, b in zip(items, decoded):
        _same(a, b)


# --------------------------------------------------------------- round trips
@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('dims', LAYOUTS)
def test_round_trip(dims, granularity, signed):
    for scale in (0.01, 0.5, 3.0):
        _round_trip(_item(dims, granularity, signed=signed, scale=scale))


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('dims', LAYOUTS)
def test_dtype_comes_back(dims, dtype):
    _round_trip(_item(dims, dtype=dtype))


def test_several_levels_of_different_kinds():
    _round_trip(
        _item((8, 12, 10)), _item((8, 6, 5), 'token', torch.float16),
        _item((9, 4), 'element'), _item((7, ), 'tensor'))


@pytest.mark.parametrize('dims', [(1, ), (1, 1), (1, 1, 1), (3, 1, 1),
                                  (1, 1, 9), (1, 9, 1), (9, 1), (1, 9)])
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_tiny_features(dims, granularity):
    for seed in range(3):
        _round_trip(_item(dims, granularity, scale=0.3, seed=seed))


def test_empty_channels_and_images():
    item = _item()
    item.symbols[:, ::2] = 0
    _round_trip(item)
    item.symbols[:] = 0
    _round_trip(item)
    assert len(encode_image([item])) < 80


def test_largest_symbols_and_exponents():
    item = _item(granularity='channel-token')
    item.symbols[0, 1] = 32767
    item.symbols[0, 2, 0] = -32767
    item.symbols[0, 3, 0, 0] = -32767
    item.steps.channel[0, ::2] = 64
    item.steps.channel[0, 1::2] = -64
    item.steps.token[0, 0, 0] = 64
    item.steps.token[0, 0, 1] = -64
    _round_trip(item)
    single = _item((1, ))
    single.symbols[:] = 32767
    _round_trip(single)


@pytest.mark.parametrize('base', [1e-30, 1.2345e-7, 7e20])
def test_base_of_any_size(base):
    item = _item()
    _round_trip(item._replace(steps=item.steps._replace(
        base=torch.tensor([base]))))


def test_random_symbols():
    """Symbols that look nothing like the model."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        shape = torch.randint(1, 9, (3, ), generator=generator).tolist()
        symbols = torch.randint(
            -32767, 32768, (1, *shape), generator=generator)
        item = _item(shape, scale=0.1)
        _round_trip(item._replace(symbols=symbols.float()))


def test_integer_symbols_and_float_exponents_are_fine():
    item = _item()
    steps = item.steps._replace(token=item.steps.token.float())
    integer = item._replace(symbols=item.symbols.short(), steps=steps)
    assert encode_image([integer]) == encode_image([item])


# --------------------------------------------------------------------- bytes
def test_bytes_do_not_depend_on_batch_or_run():
    a = _item((8, 6, 6), batch=5, scale=0.7)
    b = _item((30, 8), 'token', batch=5, seed=1)
    together = encode_batch([a, b])
    assert together == encode_batch([a, b])
    for i, data in enumerate(together):
        alone = [x.of_image(i) for x in (a, b)]
        assert encode_image(alone) == data
        for x, y in zip(alone, decode_image(data)):
            _same(x, y)


@pytest.mark.parametrize('dims', LAYOUTS)
def test_the_model_is_fitted_once(dims, monkeypatch):
    """What the code length was counted with is what the coder writes."""
    plain = _item(dims, batch=3, scale=0.7)
    expected, bits = encode_batch([plain]), code_length(plain)
    item = fit_entropy_model(plain)

    def refuse(*args):
        raise AssertionError('fitted again')

    monkeypatch.setattr('mmfeatjnd.functional.entropy._fit', refuse)
    assert torch.equal(code_length(item), bits)
    assert encode_batch([item]) == expected
    decoded = [decode_image(data)[0] for data in expected]
    assert [encode_image([x]) for x in decoded] == expected
    assert torch.equal(torch.cat([code_length(x) for x in decoded]), bits)


def test_another_model_is_read_back():
    item = fit_entropy_model(_item((4, 40, 40)))
    model = item.model._replace(scale=item.model.scale + 2)
    other = item._replace(model=model)
    assert len(encode_image([other])) > len(encode_image([item]))
    decoded, = decode_image(encode_image([other]))
    assert torch.equal(decoded.symbols, item.symbols)
    assert torch.equal(decoded.model.scale, model.scale)


def test_bodies_are_what_magic_and_checksum_enclose():
    items = [_item((8, 6, 6), batch=2), _item((30, 8), 'token', batch=2)]
    bodies = encode_bodies(items)
    for body, data in zip(bodies, encode_batch(items)):
        assert data == _sealed(b'FJND' + body)
        for a, b in zip(decode_body(body), decode_image(data)):
            _same(a, b)
        with pytest.raises(BitstreamError, match='truncated'):
            decode_body(body[:9])
        with pytest.raises(BitstreamError, match='corrupted'):
            decode_body(body + b'\1' * 9)
        with pytest.raises(BitstreamError, match='oversized'):
            decode_body(body, max_elements=8)


@pytest.mark.parametrize('scale', [0.02, 0.3, 1.0, 4.0])
def test_coded_bytes_are_the_code_length(scale):
    item = _item((4, 160, 160), 'token', scale=scale, seed=2)
    data = encode_image([item])
    model = float(code_length(item)) / 8
    without = item._replace(symbols=torch.zeros_like(item.symbols))
    side = len(encode_image([without]))  # header and exponents
    assert abs(len(data) - side - model) < 0.005 * model + 40


@pytest.mark.parametrize('scale', [2.0**-3, 1.0, 2.0**6, 2.0**12])
def test_steps_that_vary_widely(scale):
    """By a factor of 2^20: the bytes are the code length, and come back."""
    item = _item((8, 64, 64), seed=3)
    generator = torch.Generator().manual_seed(0)
    token = torch.randint(-20, 21, (1, 1, 64, 64), generator=generator)
    feature = dequantize(item)
    quantized, _ = quantize(feature, Allocation(
        item.steps._replace(token=token).scaled(scale)))
    quantized = fit_entropy_model(quantized)
    data = encode_image([quantized])
    model = float(code_length(quantized)) / 8
    without = quantized._replace(
        symbols=torch.zeros_like(quantized.symbols), model=None)
    side = len(encode_image([without]))  # header and exponents
    assert abs(len(data) - side - model) < 0.005 * model + 40
    _same(quantized, decode_image(data)[0])


def test_read_header_reads_the_header_only():
    data = encode_image([
        _item((8, 6, 5), dtype=torch.float16),
        _item((40, ), 'tensor')
    ])
    first, second = read_header(data)
    assert first['shape'] == (8, 6, 5) and second['shape'] == (40, )
    assert first['dtype'] == torch.float16
    assert first['exponents'] == ['token', 'channel']
    assert second['exponents'] == [] and second['base'] > 0


# ------------------------------------------------------------ damaged streams
def test_truncation_anywhere():
    data = encode_image([_item((4, 3, 3)), _item((5, ))])
    for n in range(len(data)):
        with pytest.raises(BitstreamError):
            decode_image(data[:n])


def test_one_wrong_byte_anywhere():
    data = encode_image([_item((4, 3, 3)), _item((5, ))])
    for i in range(len(data)):
        for flip in (1, 0x80, 0xff):
            wrong = bytearray(data)
            wrong[i] ^= flip
            with pytest.raises(BitstreamError):
                decode_image(bytes(wrong))


def test_bytes_behind_the_end():
    data = encode_image([_item((4, 3, 3))])
    with pytest.raises(BitstreamError, match='corrupted'):
        decode_image(data + b'\0')


@pytest.mark.parametrize('data', [b'', b'F', b'\x89PNG\r\n\x1a\n' + bytes(64),
                                  b'FJNE' + bytes(64), bytes(1000)])
def test_foreign_files(data):
    with pytest.raises(BitstreamError, match='not a feature stream'):
        decode_image(data)


def test_another_version():
    data = bytearray(encode_image([_item((4, 3, 3))]))[:-4]
    data[4] = 2
    with pytest.raises(BitstreamError, match='version 2.*reads version 3'):
        decode_image(_sealed(data))


def _header(*dims, form=None, base=1.0, payload=b''):
    head = bytearray(b'FJND\x03\x01')
    head.append(len(dims) if form is None else form)
    for n in dims:
        head += varint(n)
    return _sealed(head + struct.pack('<f', base) + payload)


def _peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('dims', [(1 << 40, ), (1 << 20, 1 << 20, 1),
                                  ((1 << 41) - 1, ) * 3, (3, 1 << 25)])
def test_oversized_claims_allocate_nothing(dims):

    def read():
        with pytest.raises(BitstreamError, match='oversized'):
            decode_image(_header(*dims, payload=bytes(8)))

    read()
    assert _peak(read) < 1 << 20


def test_limit_can_be_chosen():
    data = encode_image([_item((4, 3, 3)), _item((5, ))])
    assert len(decode_image(data, max_elements=41)) == 2
    with pytest.raises(BitstreamError, match='claims 41.*at most 40'):
        decode_image(data, max_elements=40)


@pytest.mark.parametrize('kwargs', [
    dict(form=0), dict(form=1 | 3 << 2), dict(form=0x81), dict(base=0.0),
    dict(base=-1.0), dict(base=float('nan')), dict(base=float('inf'))])
def test_impossible_headers(kwargs):
    with pytest.raises(BitstreamError, match='corrupted'):
        decode_image(_header(4, **kwargs))


def test_impossible_numbers():
    with pytest.raises(BitstreamError, match='impossible number'):
        decode_image(_sealed(b'FJND\x03\x01\x01' + b'\xff' * 9))


def test_empty_level_with_a_right_checksum():
    for dims in ((0, ), (3, 0), (0, 2, 2)):
        with pytest.raises(BitstreamError, match='empty'):
            decode_image(_header(*dims, payload=bytes(8)))


def _try(data):
    """Garbage is an error or finite values, never another exception."""
    try:
        levels = decode_image(data)
    except BitstreamError:
        return False
    for x in levels:
        value = dequantize(x._replace(dtype=torch.float32))
        assert torch.isfinite(value).all()
        assert x.symbols.abs().max() <= 32767
    return True


@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('dims', LAYOUTS)
def test_garbage_payload_with_a_right_checksum(dims, granularity):
    data = encode_image([_item(dims, granularity, scale=0.2)])
    start = len(b'FJND') + 3 + len(dims) + 4
    generator = np.random.default_rng(0)
    refused = 0
    for i in range(60):
        wrong = bytearray(data[:-4])
        if i % 2:
            n = len(wrong) - start
            wrong[start:] = generator.bytes(n)
        else:
            for at in generator.integers(start, len(wrong), 3):
                wrong[at] ^= int(generator.integers(1, 256))
        refused += not _try(_sealed(wrong))
    assert refused > 10


def test_garbage_anywhere_with_a_right_checksum():
    data = encode_image([_item((4, 5, 3)), _item((6, ))])
    generator = np.random.default_rng(1)
    for i in range(6, len(data) - 4):
        for value in generator.integers(0, 256, 2):
            wrong = bytearray(data[:-4])
            wrong[i] = value
            # what a changed dim claims must not be allocated here
            try:
                read_header(_sealed(wrong), max_elements=1 << 12)
            except BitstreamError:
                continue
            _try(_sealed(wrong))


# -------------------------------------------------------------- bad arguments
def test_what_cannot_be_written_is_refused():
    item = _item((4, 3, 3))
    steps = item.steps
    for symbols in (item.symbols + 0.5, item.symbols * float('nan'),
                    item.symbols + 32768):
        with pytest.raises(ValueError, match='integers within'):
            encode_image([item._replace(symbols=symbols)])
    with pytest.raises(ValueError, match='not empty'):
        encode_image([item._replace(symbols=item.symbols[:, :0])])
    with pytest.raises(ValueError, match=r'\(B, C, H, W\)'):
        encode_image([item._replace(symbols=item.symbols[None])])
    with pytest.raises(TypeError, match='float64'):
        encode_image([item._replace(dtype=torch.float64)])
    for base in (0.0, -1.0, float('nan'), float('inf'), 1e38):
        with pytest.raises(ValueError, match='steps must be positive'):
            encode_image([item._replace(steps=steps._replace(
                base=torch.tensor([base])))])
    for channel, words in ((steps.channel + 100, r'steps.channel.*\+-64'),
                           (steps.channel + 0.5, 'steps.channel must be int'),
                           (steps.channel[:, :2], 'steps.channel must have')):
        with pytest.raises(ValueError, match=words):
            encode_image([item._replace(steps=steps._replace(
                channel=channel))])


def test_an_impossible_model_is_refused():
    item = fit_entropy_model(_item((4, 3, 3)))
    for name, wrong in (('centre', 2048), ('scale', 900), ('rectified', 2)):
        broken = torch.full_like(getattr(item.model, name), wrong)
        model = item.model._replace(**{name: broken})
        with pytest.raises(ValueError, match=f'model.{name} must have shape'):
            encode_image([item._replace(model=model)])
    with pytest.raises(ValueError, match='model.scale must have shape'):
        encode_image([item._replace(model=type(item.model)(
            *(x[:, :3] for x in item.model)))])


def test_number_of_levels_and_images():
    item, pair = _item((4, )), _item((4, ), batch=2)
    with pytest.raises(ValueError, match='1 to 255 levels'):
        encode_image([])
    with pytest.raises(ValueError, match='1 to 255 levels'):
        encode_image([item] * 256)
    with pytest.raises(ValueError, match='same batch size'):
        encode_batch([item, pair])
    with pytest.raises(ValueError, match='encode_batch'):
        encode_image([pair])
    # 30 levels are enough to see that their order is kept
    items = [_item((n, ), 'tensor') for n in range(1, 31)]
    _round_trip(*items)
