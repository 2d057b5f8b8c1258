"""The container: everything comes back, and nothing else is accepted."""
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch

from mmfeatjnd.coding import BitstreamError, encode_image
from mmfeatjnd.coding import feature_file as ff
from mmfeatjnd.functional import QuantizedLevel, Steps

METAINFO = dict(  # sorted, as it comes back
    flip=False,
    flip_direction=None,
    homography=np.array([[1.5, 0.1], [0, 1]], np.float32),
    img_id=7,
    img_path='a/ü.png',
    img_shape=(32, 40),
    nested=dict(b=[1, (2, [])], a=None),
    pad_shape=torch.Size([32, 64]),
    scale_factor=(0.1, np.float32(0.1)))


def content():
    symbols = torch.arange(-12., 12.).view(1, 2, 3, 4)
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
        stream=encode_image([QuantizedLevel(symbols, Steps(torch.ones(1)))]))


def test_everything_comes_back(tmp_path, equal):
    data = ff.pack(content())
    (tmp_path / 'a.fjnd').write_bytes(data)
    expected = content()._replace(
        metainfo=dict(METAINFO, pad_shape=(32, 64)))  # a plain tuple
    for got in (ff.unpack(data), ff.read(tmp_path / 'a.fjnd')):
        equal(dict(got._asdict()), dict(expected._asdict()))
    assert data == ff.pack(content())  # no time, no name of a machine
    backwards = dict(reversed(METAINFO.items()))
    assert data == ff.pack(content()._replace(metainfo=backwards))


SENDER = """
import hashlib, sys, torch
from mmengine.structures import BaseDataElement
from mmfeatjnd.coding import feature_file as ff
names = ('img_path', 'img_id', 'ori_shape', 'img_shape', 'scale_factor')
sample = BaseDataElement(metainfo={n: n for n in names})
data = ff.pack(ff.FeatureFile(
    split='backbone', levels=(0, ), strides=((1, ), ), host='0' * 16,
    metainfo=dict(sample.metainfo),
    inputs=torch.empty(1, 3, 8, 8, device='meta'), outputs={}, stream=b''))
print(list(sample.metainfo) == sorted(names), hashlib.md5(data).hexdigest())
"""


def test_bytes_do_not_depend_on_the_order_of_sets():
    """A data sample keeps the names of its meta information in a set."""
    found = []
    for seed in '012':
        found.append(
            subprocess.run([sys.executable, '-c', SENDER],
                           env={**os.environ, 'PYTHONHASHSEED': seed},
                           capture_output=True, text=True, check=True)
            .stdout.split())
    in_order, digests = zip(*found)
    assert 'False' in in_order  # else nothing is tested
    assert len(set(digests)) == 1


@pytest.mark.parametrize('value, where', [
    (dict(a={1, 2}), 'metainfo.a holds a set'),
    (dict(a=[dict(b=b'')]), r'metainfo.a.b holds a bytes'),
    ({'$tuple': []}, 'metainfo holds a dict'),
    ({3: 4}, 'metainfo holds a dict'),
    (dict(a=torch.empty(1, dtype=torch.int8, device='meta')),
     'metainfo.a holds a tensor of int8 without'),
])
def test_what_cannot_be_written_is_named(value, where):
    with pytest.raises(TypeError, match=where):
        ff.pack(content()._replace(metainfo=value))


def test_what_would_not_be_read_is_not_written():
    with pytest.raises(ValueError, match="holds 'keys', which a data sample"):
        ff.pack(content()._replace(metainfo=dict(METAINFO, keys=1)))
    with pytest.raises(ValueError, match='must hold img_path'):
        ff.pack(content()._replace(metainfo={}))
    with pytest.raises(ValueError, match='header has .* bytes'):
        ff.pack(content()._replace(
            metainfo=dict(METAINFO, map=np.zeros(600000, np.int8))))


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
    dict(inputs={'$blank': [['float32'], 1]}),
    dict(inputs={'$blank': ['float32', 1.5]}),
    dict(inputs={'$tensor': ['float32', [1], [1]]}),
    dict(levels={'$tuple': [{'$array': ['int64', [2], [0, 1]]}]}),
    dict(levels={'$tuple': ['0']}),
    dict(levels={'$tuple': [True]}),
    dict(strides={'$tuple': [3]}),
    dict(strides={'$tuple': [{'$tuple': [None] * 4}]}),
    dict(split='backbone\x1b[2J'),
    dict(host='\x1b]0;x'),
    dict(host=''),
    dict(outputs={'backbone\n': []}),
    dict(metainfo=dict(img_id=1)),
    dict(metainfo=dict(img_path=1)),
    dict(metainfo=dict(img_path='a', b=[{'$blank': ['float32', 1]}])),
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


@pytest.mark.parametrize('name', [
    '__class__', '__dict__', '_data_fields', '_metainfo_fields', '_private',
    'metainfo', 'set_field', 'set_metainfo', 'keys', 'to_dict', 'to', 'new'])
def test_names_that_a_data_sample_uses_itself(tmp_path, name):
    good = content()
    data = ff.pack(good)
    start = struct.unpack('<4sBII', data[:13])[2] + 13
    fields = json.loads(zlib.decompress(data[13:start]))
    fields['metainfo'][name] = 'x'
    refused(tmp_path,
            seal(zlib.compress(json.dumps(fields).encode()), good.stream),
            f"corrupted.*'{name}', which a data sample uses")


def test_names_that_the_sample_of_a_host_uses_itself():
    from mmdet.structures import DetDataSample
    ff.check_names(METAINFO, DetDataSample)
    for name in ('pred_instances', '__class__', 'gt_instances', 'keys'):
        with pytest.raises(ValueError, match=f"'{name}', which"):
            ff.check_names({name: 1}, DetDataSample)
    ff.check_names(dict(pred_instances=1))


def test_a_wrong_dtype_imports_nothing(tmp_path):
    """Names are looked up in a table, not in torch, which loads modules."""
    before = set(sys.modules)
    for name in ('_inductor', 'onnx', 'int64', '__doc__'):
        with pytest.raises(KeyError):
            ff._blank(name, 1)
    assert set(sys.modules) == before


def test_a_header_that_explodes(tmp_path):
    stream = content().stream
    bomb = zlib.compress(b' ' * (4 * ff.MAX_HEADER))
    assert len(bomb) < 10000
    refused(tmp_path, seal(bomb, stream), 'corrupted.*too long')
    nested = zlib.compress(b'[' * 100000 + b']' * 100000)
    refused(tmp_path, seal(nested, stream), 'corrupted')
    refused(tmp_path, seal(b'no zlib', stream), 'corrupted')
