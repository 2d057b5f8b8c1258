import struct
import zlib

import cv2
import pytest
import torch

from mmfeatjnd.coding import BitstreamError, decode_images, encode_images
from mmfeatjnd.coding.image_codec import jpeg_images
from mmfeatjnd.functional import Steps
from mmfeatjnd.functional.pixels import (
    block_steps,
    quantize_pixels,
    restore_pixels,
)


def textures(batch=2, channels=3, height=32, width=32):
    """Smooth on the left, noisy on the right."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, channels, height, width)
    noise = torch.randn(shape, generator=generator)
    right = (torch.arange(width) >= width // 2).float()
    slope = torch.linspace(60, 180, width)
    return (slope + noise * (2 + 30 * right)).round().clamp(0, 255)


def guided(images, block, scale=1.0):
    """Steps that are larger on the right."""
    jnd = torch.linspace(2, 16, images.size(3)).expand_as(images)
    return block_steps(jnd * scale, block)


def flat_steps(images, step=16.0):
    return Steps(torch.full((len(images), ), step))


# ------------------------------------------------------------------- return
@pytest.mark.parametrize('together', [False, True])
@pytest.mark.parametrize('block, colour, shape', [
    (8, True, (2, 3, 32, 32)),
    (8, False, (2, 3, 21, 35)),
    (4, True, (3, 1, 9, 4)),
    (1, False, (2, 3, 6, 7)),
    (16, True, (2, 4, 5, 5)),
])
def test_quantized_images_come_back(block, colour, shape, together):
    images = textures(*shape)
    one_base = guided(images, block)
    assert (one_base.base == one_base.base[0]).all()
    for steps in (one_base, flat_steps(images)):
        level = quantize_pixels(images, steps, block, colour, 0.4)
        expected = restore_pixels(level, steps, shape[2:], block, colour)
        data = encode_images(
            images.byte(), steps, block, colour, 0.4, together=together)
        assert len(data) == (1 if together else len(images))
        got = torch.cat([decode_images(x) for x in data])
        assert got.dtype == torch.uint8
        if together:  # the base took part in a mean
            assert (got.int() - expected.int()).abs().max() <= 1
        else:
            assert torch.equal(got, expected)


def test_together_keeps_bases_to_half_octaves():
    images = textures(3)
    steps = Steps(torch.tensor([8., 16., 64.]))
    data, = encode_images(images, steps, together=True)
    got = decode_images(data)
    alone = torch.cat([decode_images(x)
                       for x in encode_images(images, steps)])
    error, wanted = ((x.float() - images).square().mean((1, 2, 3))
                     for x in (got, alone))
    # every image's step moves by less than a quarter of an octave
    torch.testing.assert_close(error, wanted, rtol=0.5, atol=0)
    assert (error[1:] > 1.5 * error[:-1]).all()


def test_steps_on_a_level_of_their_own():
    """Where the steps grow with what is in a block, that is shorter; where
    they do not, it is not. Both come back."""
    images = textures(1, 3, 64, 64)
    lengths = []
    for steps in (guided(images, 8), guided(images, 8)._replace(
            token=guided(images, 8).token.flip(3))):
        data, = encode_images(images, steps)
        lengths.append(data[11 + 1])  # levels, after head and version
        level = quantize_pixels(images, steps)
        assert torch.equal(decode_images(data), restore_pixels(level, steps))
    assert lengths == [2, 1]


# -------------------------------------------------------------------- bytes
@pytest.mark.parametrize('block', [1, 8])
def test_bytes_fall_as_steps_rise(block):
    images = textures(2)
    sizes = [
        sum(map(len, encode_images(images, guided(images, block, s), block)))
        for s in (0.5, 1.0, 2.0, 4.0, 8.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[-1]


def test_everything_is_counted():
    """The bytes alone are enough: no steps, size or shape beside them."""
    images = textures(1, 3, 11, 13)
    data, = encode_images(images, guided(images, 8))
    decoded = decode_images(bytes(data))
    assert decoded.shape == (1, 3, 11, 13)
    # the steps of the blocks are in there, too
    other, = encode_images(images, guided(images, 8)._replace(token=None))
    assert not torch.equal(decode_images(other), decoded)


def test_together_is_shorter_for_small_images():
    images = textures(16)
    steps = flat_steps(images, 64.0)
    alone = sum(map(len, encode_images(images, steps)))
    together, = encode_images(images, steps, together=True)
    assert len(together) < 0.8 * alone


# ------------------------------------------------------------------- errors
def test_every_cut_and_every_flipped_byte_is_refused():
    images = textures(1, 1, 8, 8)
    data, = encode_images(images, flat_steps(images, 64.0))
    for n in range(len(data)):
        with pytest.raises(BitstreamError):
            decode_images(data[:n])
        with pytest.raises(BitstreamError):
            decode_images(data[:n] + bytes([data[n] ^ 16]) + data[n + 1:])


def test_foreign_other_versions_and_sizes():
    images = textures(1)
    data, = encode_images(images, flat_steps(images))
    with pytest.raises(BitstreamError, match='not an image stream'):
        decode_images(b'FJND' + data[4:])
    with pytest.raises(BitstreamError, match='version 9'):
        decode_images(data[:4] + b'\x09' + data[5:])
    with pytest.raises(BitstreamError, match='claims 3072 elements'):
        decode_images(data, max_elements=3071)


@pytest.mark.parametrize('change', [
    dict(form=2), dict(block=0), dict(block=65), dict(block=5),
    dict(rows=8), dict(columns=9), dict(count=0), dict(count=3),
])
def test_headers_that_lie(change):
    images = textures(1)
    data, = encode_images(images, guided(images, 8))
    names = ('magic', 'version', 'form', 'block', 'rows', 'columns', 'count')
    head = dict(zip(names, struct.unpack('<4sBBBBBH', data[:11])))
    head.update(change)
    body = struct.pack('<4sBBBBBH', *head.values()) + data[11:-4]
    with pytest.raises(BitstreamError, match='corrupted: impossible'):
        decode_images(body + struct.pack('<I', zlib.crc32(body)))


def test_bad_arguments():
    images = textures(2)
    for together in (False, True):
        with pytest.raises(ValueError, match='steps.base must have shape'):
            encode_images(images, Steps(torch.ones(1)), together=together)
        with pytest.raises(ValueError, match='positive'):
            encode_images(images, Steps(torch.zeros(2)), together=together)
        with pytest.raises(ValueError, match=r'pixels in \[0, 255\]'):
            encode_images(-images, flat_steps(images), together=together)
        with pytest.raises(ValueError, match='block must be'):
            encode_images(images, flat_steps(images), 0, together=together)
    with pytest.raises(ValueError, match='differ too much'):
        encode_images(images, Steps(torch.tensor([1.0, 2.0**80])),
                      together=True)


# --------------------------------------------------------------------- JPEG
@pytest.mark.parametrize('channels', [1, 3])
def test_jpeg(channels):
    images = textures(2, channels, 24, 40)
    good, poor = (jpeg_images(images, q) for q in (95, 20))
    for x in (good, poor):
        assert x.images.shape == images.shape
        assert x.images.dtype == torch.uint8
        assert (x.header < x.bytes).all() and (x.header > 100).all()
    errors = [(x.images.float() - images).square().mean()
              for x in (good, poor)]
    assert errors[0] < errors[1] < 500
    assert (good.bytes > poor.bytes).all()


def test_jpeg_keeps_the_order_of_colours():
    red = torch.zeros(1, 3, 16, 16)
    red[:, 0] = 255
    got = jpeg_images(red, 95, subsampling=True).images.float()
    assert (got - red).abs().max() < 8
    with pytest.raises(ValueError, match='1 or 3 channels'):
        jpeg_images(torch.zeros(1, 2, 8, 8), 50)
    with pytest.raises(ValueError, match='quality must be'):
        jpeg_images(red, 0)


@pytest.mark.parametrize('quality', [5, 50, 80])
def test_headers_of_jpeg_hold_nothing_of_the_image(quality, monkeypatch):
    """They are equal byte for byte, so that they need not be counted."""
    files = []

    def encode(*args):
        found = imencode(*args)
        files.append(found[1].tobytes())
        return found

    imencode = cv2.imencode
    monkeypatch.setattr(cv2, 'imencode', encode)
    # of all contrasts, so that tables of their own would differ
    images = textures(10, 3, 64, 64)
    images = (images * torch.linspace(0.2, 1, 10).view(-1, 1, 1, 1)).round()
    header = jpeg_images(images, quality).header
    assert len(set(files)) == 10
    assert len({file[:n] for file, n in zip(files, header)}) == 1


def test_it_is_in_the_league_of_jpeg():
    """At no more error, headers of JPEG not counted; of grey levels, as JPEG
    is not made for the squared error of colours."""
    images = textures(1, 1, 128, 128)
    jpeg = jpeg_images(images, 50)
    error = (jpeg.images.float() - images).square().mean()
    sizes = []
    for step in 2.0**torch.arange(3, 7, 0.25):
        data, = encode_images(images, flat_steps(images, step.item()))
        if (decode_images(data).float() - images).square().mean() <= error:
            sizes.append(len(data))
    assert 1 < len(sizes) < 16  # the grid reaches beyond the error of JPEG
    assert 0.7 < min(sizes) / (jpeg.bytes - jpeg.header).item() < 1.1
