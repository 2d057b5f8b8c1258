import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from mmfeatjnd.coding import (
    BitstreamError,
    QuantizedLevel,
    decode_image,
    describe,
    encode_batch,
    encode_image,
)
from mmfeatjnd.functional import (
    GRANULARITIES,
    Steps,
    code_length,
    dequantize,
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
          offset=None,
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
    if offset is not None:
        steps = steps._replace(offset=torch.full((batch, ), offset))
    level = quantize(feature, steps.size(feature), offset=offset or 0.0)
    return QuantizedLevel(level, steps, dtype)


def _same(a, b):
    assert torch.equal(a.level, b.level) and a.level.shape == b.level.shape
    assert a.dtype == b.dtype
    for name in Steps._fields:
        x, y = getattr(a.steps, name), getattr(b.steps, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert torch.equal(x.to(y.dtype), y) and x.shape == y.shape, name
    value = b.dequantize()
    assert value.dtype == a.dtype
    assert torch.equal(a.dequantize(), value)


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


def test_offset_comes_back():
    item = _item(granularity='tensor', offset=0.3)
    _round_trip(item)
    step, offset = item.steps.base, item.steps.offset
    torch.testing.assert_close(
        item.dequantize(), dequantize(item.level, step, offset=offset),
        rtol=0, atol=0)


def test_several_levels_of_different_kinds():
    _round_trip(
        _item((8, 12, 10)), _item((8, 6, 5), 'token', torch.float16),
        _item((9, 4), 'element'), _item((7, ), 'tensor', offset=-1.5))


@pytest.mark.parametrize('dims', [(1, ), (1, 1), (1, 1, 1), (3, 1, 1),
                                  (1, 1, 9), (1, 9, 1), (9, 1), (1, 9)])
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_tiny_features(dims, granularity):
    for seed in range(3):
        _round_trip(_item(dims, granularity, scale=0.3, seed=seed))


def test_empty_channels_and_images():
    item = _item()
    item.level[:, ::2] = 0
    _round_trip(item)
    item.level[:] = 0
    _round_trip(item)
    assert len(encode_image([item])) < 80


def test_largest_levels_and_exponents():
    item = _item(granularity='channel-token')
    item.level[0, 1] = 32767
    item.level[0, 2, 0] = -32767
    item.level[0, 3, 0, 0] = -32767
    item.steps.channel[0, ::2] = 64
    item.steps.channel[0, 1::2] = -64
    item.steps.token[0, 0, 0] = 64
    item.steps.token[0, 0, 1] = -64
    _round_trip(item)
    single = _item((1, ))
    single.level[:] = 32767
    _round_trip(single)


@pytest.mark.parametrize('base', [1e-30, 1.2345e-7, 7e20])
def test_base_of_any_size(base):
    item = _item()
    _round_trip(item._replace(steps=item.steps._replace(
        base=torch.tensor([base]))))


def test_random_levels():
    """Levels that look nothing like the model."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        shape = torch.randint(1, 9, (3, ), generator=generator).tolist()
        level = torch.randint(-32767, 32768, (1, *shape), generator=generator)
        item = _item(shape, scale=0.1)
        _round_trip(item._replace(level=level.float()))


def test_integer_levels_and_float_exponents_are_fine():
    item = _item()
    steps = item.steps._replace(token=item.steps.token.float())
    integer = item._replace(level=item.level.short(), steps=steps)
    assert encode_image([integer]) == encode_image([item])


# --------------------------------------------------------------------- bytes
def test_bytes_do_not_depend_on_batch_or_run():
    a = _item((8, 6, 6), batch=5, scale=0.7)
    b = _item((30, 8), 'token', batch=5, seed=1)
    together = encode_batch([a, b])
    assert together == encode_batch([a, b])
    for i, data in enumerate(together):
        alone = [
            x._replace(level=x.level[i:i + 1],
                       steps=Steps(*(None if e is None else e[i:i + 1]
                                     for e in x.steps))) for x in (a, b)
        ]
        assert encode_image(alone) == data
        for x, y in zip(alone, decode_image(data)):
            _same(x, y)


@pytest.mark.parametrize('scale', [0.02, 0.3, 1.0, 4.0])
def test_coded_bytes_are_the_code_length(scale):
    item = _item((4, 160, 160), 'token', scale=scale, seed=2)
    data = encode_image([item])
    model = float(code_length(item.level, item.steps)) / 8
    without = item._replace(level=torch.zeros_like(item.level))
    side = len(encode_image([without]))  # header and exponents
    assert abs(len(data) - side - model) < 0.005 * model + 40


def test_describe_reads_the_header_only():
    data = encode_image([
        _item((8, 6, 5), dtype=torch.float16),
        _item((40, ), 'tensor', offset=2.0)
    ])
    first, second = describe(data)
    assert first['shape'] == (8, 6, 5) and second['shape'] == (40, )
    assert first['dtype'] == torch.float16
    assert first['exponents'] == ['token', 'channel']
    assert first['offset'] is None and second['offset'] == 2
    assert second['start'] == first['start'] + first['bytes']
    assert len(data) == second['start'] + second['bytes'] + 4


# ------------------------------------------------------------ damaged streams
def test_truncation_anywhere():
    data = encode_image([_item((4, 3, 3)), _item((5, ), offset=1.0)])
    for n in range(len(data)):
        with pytest.raises(BitstreamError):
            decode_image(data[:n])


def test_one_wrong_byte_anywhere():
    data = encode_image([_item((4, 3, 3)), _item((5, ), offset=1.0)])
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
    with pytest.raises(BitstreamError, match='version 2.*reads version 1'):
        decode_image(_sealed(data))


def _header(*dims, form=None, base=1.0, payload=b'', size=None):
    head = bytearray(b'FJND\x01\x01')
    head.append(len(dims) if form is None else form)
    for n in (*dims, None):
        if n is None:
            head += struct.pack('<f', base)
            n = len(payload) if size is None else size
        while n > 127:
            head.append(n & 127 | 128)
            n >>= 7
        head.append(n)
    return _sealed(head + payload)


def _peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('dims', [(1 << 40, ), (1 << 20, 1 << 20, 1),
                                  ((1 << 41) - 1, ) * 3, (3, 1 << 26)])
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
    dict(form=0), dict(form=1 | 3 << 2), dict(base=0.0), dict(base=-1.0),
    dict(base=float('nan')), dict(base=float('inf')), dict(size=1 << 34),
    dict(size=1 << 60), dict(payload=b'abc'), dict(payload=b'')])
def test_impossible_headers(kwargs):
    with pytest.raises(BitstreamError):
        decode_image(_header(4, **kwargs))


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
        assert torch.isfinite(x._replace(dtype=torch.float32).dequantize()
                              ).all()
        assert x.level.abs().max() <= 32767
    return True


@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('dims', LAYOUTS)
def test_garbage_payload_with_a_right_checksum(dims, granularity):
    data = encode_image([_item(dims, granularity, scale=0.2)])
    start = describe(data)[0]['start']
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
    data = encode_image([_item((4, 5, 3)), _item((6, ), offset=1.0)])
    generator = np.random.default_rng(1)
    for i in range(6, len(data) - 4):
        for value in generator.integers(0, 256, 2):
            wrong = bytearray(data[:-4])
            wrong[i] = value
            # what a changed dim claims must not be allocated here
            try:
                describe(_sealed(wrong), max_elements=1 << 12)
            except BitstreamError:
                continue
            _try(_sealed(wrong))


# -------------------------------------------------------------- bad arguments
def test_what_cannot_be_written_is_refused():
    item = _item((4, 3, 3))
    steps = item.steps
    for level in (item.level + 0.5, item.level * float('nan'),
                  item.level + 32768):
        with pytest.raises(ValueError, match='integers within'):
            encode_image([item._replace(level=level)])
    with pytest.raises(ValueError, match='not empty'):
        encode_image([item._replace(level=item.level[:, :0])])
    with pytest.raises(ValueError, match=r'\(B, C, H, W\)'):
        encode_image([item._replace(level=item.level[None])])
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
    with pytest.raises(ValueError, match='range of float32'):
        encode_image([item._replace(steps=steps._replace(
            offset=torch.tensor([float('inf')])))])


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
