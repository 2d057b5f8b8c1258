import pytest
import torch

from mmfeatjnd.functional import (
    DETERMINISTIC,
    DISTORTIONS,
    NEEDS_JND,
    NEEDS_SENSITIVITY,
    Level,
    gaussian_noise,
    image_keys,
    scale_to_nrmse,
    to_tokens,
    uniform_noise,
)

SHAPES = [(3, 6, 4, 5), (3, 10, 6), (3, 6)]


def make_level(shape, stream=0, ids=(0, 1, 2), **kwargs):
    keys = image_keys(ids)
    every = {
        'feature': gaussian_noise(keys, shape[1:], 90),
        'jnd': gaussian_noise(keys, shape[1:], 91),
        'sensitivity': gaussian_noise(keys, shape[1:], 92).square(),
    }
    every.update(kwargs)
    return Level(keys=keys, stream=stream, **every)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', sorted(DISTORTIONS))
def test_every_distortion_belongs_to_the_image(name, shape):
    level = make_level(shape, stream=2)
    delta = DISTORTIONS[name](level)
    assert delta.shape == shape and delta.dtype == torch.float32
    assert delta.abs().sum() > 0
    alone = make_level((1, *shape[1:]), stream=2, ids=(1, ))
    assert torch.equal(DISTORTIONS[name](alone)[0], delta[1])


@pytest.mark.parametrize('name', sorted(DISTORTIONS))
def test_streams_matter_where_there_is_randomness(name):
    level = make_level((3, 6, 4, 5))
    same = torch.equal(DISTORTIONS[name](level),
                       DISTORTIONS[name](level._replace(stream=1)))
    assert same == (name in DETERMINISTIC)


@pytest.mark.parametrize('name', sorted(DISTORTIONS))
def test_needs_are_declared(name):
    """A distortion runs on what it declares and nothing more."""
    level = make_level((3, 6, 4, 5))
    if name not in NEEDS_JND:
        level = level._replace(jnd=None)
    if name not in NEEDS_SENSITIVITY:
        level = level._replace(sensitivity=None)
    DISTORTIONS[name](level)


def test_simple_ones():
    level = make_level((3, 6, 4, 5), stream=1)
    shape = (6, 4, 5)
    expected = {
        'featjnd': level.jnd,
        'sign-flipped': -level.jnd,
        'shrinkage': -level.feature,
        'amplification': level.feature,
        'gaussian': gaussian_noise(level.keys, shape, 1),
        'uniform': uniform_noise(level.keys, shape, 1),
    }
    for name, delta in expected.items():
        assert torch.equal(DISTORTIONS[name](level), delta), name


@pytest.mark.parametrize('shape', SHAPES[:2])
def test_permuted_moves_whole_tokens(shape):
    level = make_level(shape)
    before = to_tokens(level.jnd)
    after = to_tokens(DISTORTIONS['permuted'](level))
    assert not torch.equal(before, after)
    for a, b in zip(before, after):
        assert sorted(map(tuple, a.tolist())) == sorted(
            map(tuple, b.tolist()))


@pytest.mark.parametrize('shape', SHAPES)
def test_channel_shuffled_moves_whole_channels(shape):
    level = make_level(shape)
    before = to_tokens(level.jnd).transpose(1, 2)
    after = to_tokens(
        DISTORTIONS['channel-shuffled'](level)).transpose(1, 2)
    assert not torch.equal(before, after)
    for a, b in zip(before, after):
        assert sorted(map(tuple, a.tolist())) == sorted(
            map(tuple, b.tolist()))


def test_images_are_permuted_independently():
    jnd = torch.arange(30.).view(1, 30, 1).expand(2, 30, 2)
    level = make_level((2, 30, 2), ids=(0, 1), jnd=jnd)
    first, second = DISTORTIONS['permuted'](level)
    assert not torch.equal(first, second)


@pytest.mark.parametrize('scale', [1., 1e-22, 1e12])
def test_gradient_sensitivity_is_weak_where_the_gradient_is_large(scale):
    w = torch.ones(1, 2, 40, 50)
    w[:, 0] = 100  # the first channel matters more
    w[..., 25:] *= 9  # and the right half
    level = make_level(w.shape, ids=(0, ), sensitivity=w * scale)
    delta = DISTORTIONS['gradient-sensitivity'](level)[0]
    rms = torch.stack([delta[..., :25], delta[..., 25:]]).square()
    rms = rms.mean((2, 3)).sqrt()  # half, channel
    # sigma^-2 = w / mean + 0.01, and w is of rank one here
    w = torch.tensor([[100., 1.], [900., 9.]])
    expected = (w / w.mean() + 0.01).rsqrt()
    torch.testing.assert_close(rms, expected, rtol=0.1, atol=0)


def test_gradient_sensitivity_without_gradient_is_white():
    w = torch.zeros(3, 6, 4, 5)
    level = make_level(w.shape, sensitivity=w)
    delta = scale_to_nrmse(
        DISTORTIONS['gradient-sensitivity'](level), level.feature, 0.5)
    white = scale_to_nrmse(
        DISTORTIONS['gaussian'](level), level.feature, 0.5)
    torch.testing.assert_close(delta, white)
