"""Files that were stored once are read, and written, as they were then.

See ``tests/golden/make.py`` for what they are and when they may change.
"""
import json
import runpy
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from mmfeatjnd.apis import load_estimator, save_estimator
from mmfeatjnd.coding import (
    BitstreamError,
    decode_image,
    decode_images,
    read_plan_header,
)
from mmfeatjnd.functional import dequantize

GOLDEN = Path(__file__).resolve().parent / 'golden'
make = runpy.run_path(str(GOLDEN / 'make.py'))
VALUES = np.load(GOLDEN / 'values.npz')
READERS = dict(
    feature_stream=decode_image,
    plan_stream=make['read_plan_stream'],
    pixels=decode_images,
    pixels_two_levels=decode_images,
    pixels_together=decode_images,
    pixels_plain=decode_images)


def stored(name):
    return (GOLDEN / f'{name}.bin').read_bytes()


def test_every_format_has_its_files():
    names = {f.stem for f in GOLDEN.glob('*.bin')}
    assert names == set(READERS)
    assert all(f.stat().st_size < 6000 for f in GOLDEN.iterdir()
               if f.suffix != '.py' and f.is_file())


def test_the_feature_stream_is_read():
    expected, got = make['levels'](), decode_image(stored('feature_stream'))
    assert len(got) == 3
    for i, (a, b) in enumerate(zip(expected, got)):
        assert torch.equal(a.symbols, b.symbols) and a.dtype == b.dtype
        for x, y in zip(a.steps, b.steps):
            assert (x is None) == (y is None)
            assert x is None or torch.equal(x.to(y), y)
        np.testing.assert_array_equal(make['bits'](b), VALUES[f'level_{i}'])
    # by hand: one symbol, its step, and what comes out as a feature
    symbol, step = got[0].symbols[0, 2, 3, 1], got[0].steps.base[0] * 2**(
        (got[0].steps.token[0, 0, 3, 1] + got[0].steps.channel[0, 2]) / 2)
    assert symbol != 0
    assert dequantize(got[0])[0, 2, 3, 1] == (symbol * step).half()


def test_the_plan_stream_is_read():
    data = stored('plan_stream')
    assert data[:1] == b'\3' and data[1:5] == bytes([0xab, 3, 0x80, 5])
    header = read_plan_header(data, make['DIGEST'])
    assert header == ((427, 640), -28, True, 6)
    for a, b in zip(make['parts'](), READERS['plan_stream'](data),
                    strict=True):
        assert torch.equal(a.symbols, b.symbols)
        assert torch.equal(a.steps.token, b.steps.token)
        assert torch.equal(a.steps.base, b.steps.base)


@pytest.mark.parametrize('name', [n for n in READERS if 'pixels' in n])
def test_pixel_streams_are_read(name):
    np.testing.assert_array_equal(
        decode_images(stored(name)).numpy(), VALUES[name])


def test_pixels_by_hand():
    """A plain quantizer with steps of 8 about grey."""
    x = make['pictures'](1, 1, 7, 5).numpy().astype(int)
    # to the nearest step; what lies in the middle goes away from zero
    level = np.sign(x - 128) * ((abs(x - 128) + 4) // 8)
    np.testing.assert_array_equal(VALUES['pixels_plain'], 128 + 8 * level)


def test_the_same_bytes_are_written():
    found = make['files']()
    assert found.keys() == READERS.keys()
    for name, data in found.items():
        assert data == stored(name), name


@pytest.mark.parametrize('name', [n for n in READERS if n != 'plan_stream'])
def test_other_versions_are_refused(name):
    """By name, with a checksum that fits: nobody may take such a file for a
    damaged one."""
    data = stored(name)
    for version in (0, 9, 255):
        body = data[:4] + bytes([version]) + data[5:-4]
        with pytest.raises(
                BitstreamError,
                match=f'version {version}, but this mmfeatjnd reads'):
            READERS[name](body + struct.pack('<I', zlib.crc32(body)))


def test_other_versions_of_the_plan_stream_are_refused():
    data = stored('plan_stream')
    with pytest.raises(BitstreamError, match='version 2, but this mmfeatjnd'):
        READERS['plan_stream'](b'\5' + data[1:])


def test_another_version_inside_is_refused():
    """An image stream of this version around another feature stream."""
    data = stored('pixels')
    body = data[:11] + b'\x09' + data[12:-4]
    with pytest.raises(BitstreamError, match='stream version 9, but'):
        decode_images(body + struct.pack('<I', zlib.crc32(body)))


# ----------------------------------------------------------------- estimators
def same_state(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value.dtype == b[key].dtype and torch.equal(value, b[key]), key


def test_the_estimator_file_is_read():
    model = make['host']()
    expected = {
        k: v.clone()
        for k, v in model.neck.estimators.state_dict().items()
    }
    for value in model.neck.estimators.state_dict().values():
        value.zero_()
    load_estimator(model, GOLDEN / 'estimator.safetensors')
    same_state(model.neck.estimators.state_dict(), expected)
    assert model.neck.estimators[0].trained


def opened(path):
    with safe_open(str(path), 'pt') as file:
        about = json.loads(file.metadata()['mmfeatjnd'])
        return about, {k: file.get_tensor(k) for k in file.keys()}


def test_the_estimator_file_is_written(tmp_path):
    save_estimator(make['host'](), tmp_path / 'estimator.safetensors')
    (stored, state), (written, other) = (
        opened(f / 'estimator.safetensors') for f in (GOLDEN, tmp_path))
    same_state(state, other)
    for content in (stored, written):
        content.pop('version')  # of the package
    assert stored == written == dict(
        format='mmfeatjnd.estimator',
        format_version=6,
        neck=dict(
            estimator=dict(
                type='mmfeatjnd.TokenEstimator',
                hidden_channels=2,
                num_layers=1,
                mode='envelope'),
            split='backbone',
            in_channels=[3],
            levels=[0],
            shared=False,
            layout=None),
        types=['TokenEstimator'],
        mode=['envelope'],
        log_range=[4.0],
        host='Module',
        classes=None,
        host_hash='38f68603ef2ce81af4f23d9796883536'
        'a07f5d7d6233677bfa09268a243e10fb')


@pytest.mark.parametrize('version', [None, 5, 7])
def test_other_versions_of_the_estimator_file_are_refused(tmp_path, version):
    about, state = opened(GOLDEN / 'estimator.safetensors')
    about = json.dumps(dict(about, format_version=version))
    path = tmp_path / 'e.safetensors'
    path.write_bytes(save(state, dict(mmfeatjnd=about)))
    with pytest.raises(ValueError, match=f'version {version} of the format'):
        load_estimator(make['host'](), path)
