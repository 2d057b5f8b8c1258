import math

import numpy as np
import pytest
import scipy.fft
import torch

from mmfeatjnd.functional import Steps
from mmfeatjnd.functional.pixels import (
    block_dct,
    block_steps,
    inverse_block_dct,
    quantize_pixels,
    restore_pixels,
)


def pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).float()


# ---------------------------------------------------------------- transform
def test_it_is_the_dct_of_colours_rows_and_columns():
    x = pixels(1, 3, 8, 16).double()
    expected = scipy.fft.dctn(x[0, :, :, 8:].numpy(), norm='ortho')
    got = block_dct(x)[0, :, 0, 1].view(3, 64).numpy()
    # JPEG's zigzag: right, then down to the left, ...
    for i, (u, v) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0), (1, 1),
                                (0, 2), (0, 3), (1, 2), (2, 1), (3, 0)]):
        np.testing.assert_allclose(got[:, i], expected[:, u, v], atol=1e-10)
    np.testing.assert_allclose(got[:, 63], expected[:, 7, 7], atol=1e-10)


def test_colours_by_hand():
    rgb = torch.tensor([90., 30., 60.]).view(1, 3, 1, 1)
    got = block_dct(rgb, block=1).flatten()
    expected = [180 / math.sqrt(3), 30 / math.sqrt(2), 90 / math.sqrt(6)]
    torch.testing.assert_close(got, torch.tensor(expected))
    assert torch.equal(block_dct(rgb, block=1, colour=False), rgb)


@pytest.mark.parametrize('block', [1, 2, 8, 16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_parseval_and_inverse(block, channels):
    x = pixels(2, channels, 16, 32).double()
    for colour in (True, False):
        y = block_dct(x, block, colour)
        assert y.shape == (2, channels * block**2, 16 // block, 32 // block)
        torch.testing.assert_close(
            y.square().sum((1, 2, 3)), x.square().sum((1, 2, 3)))
        torch.testing.assert_close(
            inverse_block_dct(y, None, block, colour), x)


@pytest.mark.parametrize('size', [(1, 1), (5, 9), (8, 17), (30, 23)])
def test_sizes_that_are_no_whole_blocks(size):
    x = pixels(2, 3, *size).double()
    y = block_dct(x)
    assert y.shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8))
    torch.testing.assert_close(inverse_block_dct(y, size), x)
    # what is beyond repeats the edge, so a constant image stays constant
    constant = block_dct(torch.full((1, 1, *size), 7.))
    torch.testing.assert_close(constant[:, :1].unique(),
                               torch.tensor([7. * 8]))
    assert constant[:, 1:].abs().max() < 1e-4


# -------------------------------------------------------------------- steps
def test_steps_by_hand():
    e = torch.zeros(1, 1, 2, 6)
    e[..., :2] = torch.tensor([[4., -2.], [1., -1.]])  # mean |e| = 2
    e[..., 2:4] = -8.
    steps = block_steps(e, block=2, finest=1.0)
    # twice the means: 4, 16, and nothing, i.e. the finest; all are half
    # octaves from their geometric mean, 4
    assert steps.base.item() == pytest.approx(4)
    assert not steps.token.is_floating_point()
    assert steps.token.tolist() == [[[[0, 4, -4]]]]
    # a network's output has a gradient; its steps are on the grid all the same
    assert torch.equal(block_steps(e.requires_grad_(), 2).token, steps.token)
    torch.testing.assert_close(
        steps.size(torch.zeros(1, 1, 1, 3)).flatten(),
        torch.tensor([4., 16., 1.]))


def test_steps_join_the_channels_and_only_what_is_image():
    e = torch.tensor([1., 2., 6.]).view(1, 3, 1, 1).expand(1, 3, 9, 3)
    steps = block_steps(e)  # two blocks, both reach over the edge
    assert steps.token.tolist() == [[[[0], [0]]]]
    assert steps.base.item() == pytest.approx(6)


def test_rounding_stays_within_the_jnd():
    x = pixels(2, 3, 24, 40)
    e = (1 + pixels(2, 3, 24, 40, seed=1) / 16) * x.sub(128).sign()
    steps = block_steps(e)
    level = quantize_pixels(x, steps)
    size = steps.size(level)
    error = (block_dct(x - 128) - level * size).abs()
    assert (error <= size / 2 * 1.0001).all()
    assert error.max() > 5  # it is no empty bound
    # in pixels: the RMS error of every block, before 8 bits
    back = inverse_block_dct(level * size, (24, 40))
    rms = torch.nn.functional.avg_pool2d(
        (back - (x - 128)).square().mean(1, keepdim=True), 8).sqrt()
    assert (rms <= size / 2 * 1.0001).all()


# ---------------------------------------------------------------- quantizer
def test_pixels_by_hand():
    x = torch.tensor([0., 100., 126., 133., 138., 255.]).view(1, 1, 1, 6)
    steps = Steps(torch.tensor([10.]))
    level = quantize_pixels(x, steps, block=1)
    assert level.flatten().tolist() == [-13, -3, 0, 1, 1, 13]
    got = restore_pixels(level, steps, block=1)
    assert got.dtype == torch.uint8
    assert got.flatten().tolist() == [0, 98, 128, 138, 138, 255]
    # one step a pixel, half octaves
    steps = Steps(torch.tensor([10.]),
                  torch.tensor([2, 0, 2, 0, 2, 0]).view(1, 1, 1, 6))
    assert quantize_pixels(x, steps, block=1).flatten().tolist() == \
        [-6, -3, 0, 1, 1, 13]
    level = quantize_pixels(x, steps, block=1, rounding=0.25)
    assert level.flatten().tolist() == [-6, -3, 0, 0, 0, 12]


def test_middles_between_grey_levels_go_up():
    # a DC of 4 k is k / 2 grey levels: half of the blocks are in the middle
    level = torch.zeros(1, 64, 1, 201)
    level[0, 0, 0] = torch.arange(-100., 101)
    got = restore_pixels(level, Steps(torch.tensor([4.])))
    expected = torch.arange(-100, 101).div(2).add(128.5).floor()
    assert torch.equal(got[0, 0, 3, ::8].float(), expected)
    assert torch.equal(got, got[..., :1, :].expand_as(got))


def test_fine_steps_change_nothing():
    x = pixels(2, 3, 13, 21)
    for block in (1, 8):
        steps = Steps(torch.full((2, ), 0.2))
        level = quantize_pixels(x, steps, block)
        assert torch.equal(
            restore_pixels(level, steps, (13, 21), block).float(), x)


def test_images_do_not_depend_on_their_batch():
    x = pixels(5, 3, 20, 24)
    e = pixels(5, 3, 20, 24, seed=1) / 8
    steps = block_steps(e)
    whole = restore_pixels(quantize_pixels(x, steps), steps, (20, 24))
    for i in range(5):
        one = block_steps(e[i:i + 1])
        assert torch.equal(one.token, steps.token[i:i + 1])
        level = quantize_pixels(x[i:i + 1].byte(), one)
        assert torch.equal(
            restore_pixels(level, one, (20, 24)), whole[i:i + 1])


# ------------------------------------------------------------------- errors
@pytest.mark.parametrize('images, match', [
    (torch.rand(1, 3, 8, 8) - 0.5, r'pixels in \[0, 255\].*normalization'),
    (torch.full((1, 3, 8, 8), 256.), r'within \[256, 256\]'),
    (torch.full((1, 3, 8, 8), math.nan), 'nan'),
    (torch.zeros(3, 8, 8), r'shape \(3, 8, 8\)'),
    (torch.zeros(0, 3, 8, 8), 'empty'),
    ([torch.zeros(3, 8, 8)], 'list.*one by one'),
])
def test_bad_images(images, match):
    with pytest.raises(ValueError, match=match):
        quantize_pixels(images, Steps(torch.ones(1)))


@pytest.mark.parametrize('steps, match', [
    (Steps(torch.zeros(1)), 'positive'),
    (Steps(torch.full((1, ), math.inf)), 'finite'),
    (Steps(torch.full((1, ), math.nan)), 'finite'),
    (Steps(torch.ones(2)), r'steps.base must have shape \(1,\)'),
    (Steps(torch.ones(1), torch.zeros(1, 1, 4, 4)),
     r'steps.token must have shape \(1, 1, 2, 2\).*blocks'),
    (Steps(torch.ones(1), channel=torch.zeros(1, 192, 1, 1)), 'channel'),
    (Steps(torch.full((1, ), 1e-3)), 'too fine'),
])
def test_bad_steps(steps, match):
    with pytest.raises(ValueError, match=match):
        quantize_pixels(pixels(1, 3, 16, 16), steps)


def test_other_bad_arguments():
    x = torch.ones(1, 3, 8, 8)
    for block in (0, 65, 8.0):
        with pytest.raises(ValueError, match='block must be an integer'):
            block_dct(x, block)
    with pytest.raises(ValueError, match='7 channels.*64 frequencies'):
        inverse_block_dct(torch.ones(1, 7, 2, 2))
    with pytest.raises(ValueError, match='jnd must be finite'):
        block_steps(x * math.nan)
    with pytest.raises(ValueError, match='finest'):
        block_steps(x, finest=0.0)
    with pytest.raises(ValueError, match=r'jnd must be a tensor \(B, C'):
        block_steps(x[0])
