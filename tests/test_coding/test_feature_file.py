"""The container: everything comes back, and nothing else is accepted."""
import json
import struct
import zlib

import numpy as np
import pytest
import torch

from mmfeatjnd.coding import BitstreamError, QuantizedLevel, encode_image
from mmfeatjnd.coding import feature_file as ff
from mmfeatjnd.functional import Steps

METAINFO = dict(
    img_path='a/ü.png',
    img_id=7,
    img_shape=(32, 40),
    pad_shape=torch.Size([32, 64]),
    scale_factor=(0.1, np.float32(0.1)),
    flip=False,
    flip_direction=None,
    homography=np.array([[1.5, 0.1], [0, 1]], np.float32),
    nested=dict(a=[1, (2, [])]))


def content():
    level = torch.arange(-12., 12.).view(1, 2, 3, 4)
    return ff.FeatureFile(
        split='backbone',
        levels=(1, ),
        strides=((24, 12, 4, 1), ),
        host='0123456789abcdef',
        metainfo=METAINFO,
        inputs=torch.empty(1, 3, 32, 64, device='meta'),
        outputs={
            'backbone': [(torch.empty(
                1, 2, 3, 4, dtype=torch.float16, device='meta'),
                          torch.tensor([[True, False]]), (8, 8))]
        },
        stream=encode_image([QuantizedLevel(level, Steps(torch.ones(1)))]))


def equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
        assert a.is_meta or torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            equal(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            equal(x, y)
    else:
        assert a == b


def test_everything_comes_back(tmp_path):
    data = ff.pack(content())
    (tmp_path / 'a.fjnd').write_bytes(data)
    expected = content()
    expected.metainfo['pad_shape'] = (32, 64)  # a plain tuple
    for got in (ff.unpack(data), ff.read(tmp_path / 'a.fjnd')):
        equal(dict(got._asdict()), dict(expected._asdict()))
    assert data == ff.pack(content())  # no time, no name of a machine


@pytest.mark.parametrize('value, where', [
    (dict(a={1, 2}), 'metainfo.a holds a set'),
    (dict(a=[dict(b=b'')]), r'metainfo.a.b holds a bytes'),
    ({'$tuple': []}, 'metainfo holds a dict'),
    ({3: 4}, 'metainfo holds a dict'),
])
def test_what_cannot_be_written_is_named(value, where):
    with pytest.raises(TypeError, match=where):
        ff.pack(content()._replace(metainfo=value))


def refused(tmp_path, data, match):
    file = tmp_path / 'x.fjnd'
    file.write_bytes(data)
    with pytest.raises(BitstreamError, match=match):
        ff.read(file)
    with pytest.raises(BitstreamError, match=match):
        ff.unpack(data)


def test_every_cut_and_every_flipped_byte_is_refused():
    data = ff.pack(content())
    for n in range(len(data)):
        with pytest.raises(BitstreamError):
            ff.unpack(data[:n])
        with pytest.raises(BitstreamError):
            ff.unpack(data[:n] + bytes([data[n] ^ 16]) + data[n + 1:])


def test_foreign_and_other_versions(tmp_path):
    data = ff.pack(content())
    refused(tmp_path, b'', 'not a feature file')
    refused(tmp_path, b'\x89PNG' + data[4:], 'not a feature file')
    refused(tmp_path, content().stream, 'not a feature file')
    refused(tmp_path, data[:4] + b'\x02' + data[5:], 'version 2')


def test_sizes_are_not_trusted(tmp_path):
    data = ff.pack(content())
    huge = struct.pack('<4sBII', ff.MAGIC, 1, 100, 0xffffffff)
    refused(tmp_path, huge + data[13:], 'truncated: 4294967412 bytes')
    huge = struct.pack('<4sBII', ff.MAGIC, 1, 0xffffffff, 9)
    refused(tmp_path, huge + data[13:], 'oversized')
    with pytest.raises(BitstreamError, match='claims 24 elements'):
        ff.unpack(data, max_elements=23)


def seal(header, stream):
    """A file whose lengths and checksum are right."""
    data = struct.pack('<4sBII', ff.MAGIC, 1, len(header), len(stream))
    data += header + stream
    return data + struct.pack('<I', zlib.crc32(data))


@pytest.mark.parametrize('change', [
    dict(levels={'$tuple': [0, 1]}),
    dict(strides=3),
    dict(split=None),
    dict(inputs=[]),
    dict(more=1),
    dict(inputs={'$blank': ['float32', 1 << 30, 1 << 30]}),
    dict(inputs={'$blank': ['float32', -1]}),
    dict(inputs={'$blank': ['load', 1]}),
    dict(outputs=dict(backbone=3)),
    dict(metainfo=dict(a={'$array': ['object', [1], [1]]})),
    dict(metainfo=dict(a={'$array': ['int64', [1 << 40], [1]]})),
    dict(metainfo=dict(a={'$tensor': 3})),
])
def test_headers_that_lie(tmp_path, change):
    good = ff.pack(content())
    _, _, n, _ = struct.unpack('<4sBII', good[:13])
    fields = json.loads(zlib.decompress(good[13:13 + n]))
    stream = content().stream

    def data(fields):
        return seal(zlib.compress(json.dumps(fields).encode()), stream)

    ff.unpack(data(fields))
    refused(tmp_path, data({**fields, **change}), 'corrupted')


def test_a_header_that_explodes(tmp_path):
    stream = content().stream
    bomb = zlib.compress(b' ' * (4 * ff.MAX_HEADER))
    assert len(bomb) < 10000
    refused(tmp_path, seal(bomb, stream), 'corrupted.*too long')
    nested = zlib.compress(b'[' * 100000 + b']' * 100000)
    refused(tmp_path, seal(nested, stream), 'corrupted')
    refused(tmp_path, seal(b'no zlib', stream), 'corrupted')
