import pytest
import torch

from mmfeatjnd.functional import (
    Level,
    gaussian_noise,
    image_keys,
    scale_to_nrmse,
    to_tokens,
    uniform_noise,
)
from mmfeatjnd.models import build_distortion, distortion_names

NAMES = distortion_names()

SHAPES = [(3, 6, 4, 5), (3, 10, 6), (3, 6)]


def make_level(shape, stream=0, ids=(0, 1, 2), **kwargs):
    keys = image_keys(ids)
    every = {
        'feature': gaussian_noise(keys, shape[1:], 90),
        'distortion': gaussian_noise(keys, shape[1:], 91),
        'sensitivity': gaussian_noise(keys, shape[1:], 92).square(),
    }
    every.update(kwargs)
    return Level(keys=keys, stream=stream, **every)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', NAMES)
def test_every_distortion_belongs_to_the_image(name, shape):
    level = make_level(shape, stream=2)
    delta = build_distortion(name)(level)
    assert delta.shape == shape and delta.dtype == torch.float32
    assert delta.abs().sum() > 0
    alone = make_level((1, *shape[1:]), stream=2, ids=(1, ))
    assert torch.equal(build_distortion(name)(alone)[0], delta[1])


@pytest.mark.parametrize('name', NAMES)
def test_streams_matter_where_there_is_randomness(name):
    level = make_level((3, 6, 4, 5))
    same = torch.equal(build_distortion(name)(level),
                       build_distortion(name)(level._replace(stream=1)))
    assert same == (not build_distortion(name).random)


@pytest.mark.parametrize('name', NAMES)
def test_needs_are_declared(name):
    """A distortion runs on what it declares and nothing more."""
    level = make_level((3, 6, 4, 5))
    distortion = build_distortion(name)
    if not distortion.needs_jnd:
        level = level._replace(distortion=None)
    if not distortion.needs_sensitivity:
        level = level._replace(sensitivity=None)
    distortion(level)


def test_simple_ones():
    level = make_level((3, 6, 4, 5), stream=1)
    shape = (6, 4, 5)
    expected = {
        'featjnd': level.distortion,
        'sign-flipped': -level.distortion,
        'shrinkage': -level.feature,
        'amplification': level.feature,
        'gaussian': gaussian_noise(level.keys, shape, 1),
        'uniform-noise': uniform_noise(level.keys, shape, 1),
    }
    for name, delta in expected.items():
        assert torch.equal(build_distortion(name)(level), delta), name


@pytest.mark.parametrize('shape', SHAPES[:2])
def test_permuted_moves_whole_tokens(shape):
    level = make_level(shape)
    before = to_tokens(level.distortion)
    after = to_tokens(build_distortion('permuted-map')(level))
    assert not torch.equal(before, after)
    for a, b in zip(before, after):
        assert sorted(map(tuple, a.tolist())) == sorted(
            map(tuple, b.tolist()))


@pytest.mark.parametrize('shape', SHAPES)
def test_channel_shuffled_moves_whole_channels(shape):
    level = make_level(shape)
    before = to_tokens(level.distortion).transpose(1, 2)
    after = to_tokens(
        build_distortion('channel-shuffled')(level)).transpose(1, 2)
    assert not torch.equal(before, after)
    for a, b in zip(before, after):
        assert sorted(map(tuple, a.tolist())) == sorted(
            map(tuple, b.tolist()))


def test_images_are_permuted_independently():
    jnd = torch.arange(30.).view(1, 30, 1).expand(2, 30, 2)
    level = make_level((2, 30, 2), ids=(0, 1), distortion=jnd)
    first, second = build_distortion('permuted-map')(level)
    assert not torch.equal(first, second)


@pytest.mark.parametrize('scale', [1., 1e-22, 1e12])
def test_gradient_sensitivity_is_weak_where_the_gradient_is_large(scale):
    w = torch.ones(1, 2, 40, 50)
    w[:, 0] = 100  # the first channel matters more
    w[..., 25:] *= 9  # and the right half
    level = make_level(w.shape, ids=(0, ), sensitivity=w * scale)
    delta = build_distortion('gradient-sensitivity')(level)[0]
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
        build_distortion('gradient-sensitivity')(level), level.feature, 0.5)
    white = scale_to_nrmse(
        build_distortion('gaussian')(level), level.feature, 0.5)
    torch.testing.assert_close(delta, white)


def test_errors():
    with pytest.raises(ValueError, match="'gaussian'.*but got 'salt'"):
        build_distortion('salt')
    with pytest.raises(ValueError, match='with one of them as type'):
        build_distortion(dict(strength=1))


def test_one_of_your_own():
    from mmfeatjnd.models import Distortion, Perturbation
    from mmfeatjnd.registry import DISTORTIONS

    @DISTORTIONS.register_module(name='constant')
    class Constant(Distortion):

        random = False

        def __init__(self, value=1.0):
            self.value = value

        def __call__(self, level):
            return level.feature.new_full(level.feature.shape, self.value)

    try:
        level = make_level((3, 6, 4, 5))
        assert (build_distortion('constant')(level) == 1).all()
        operation = Perturbation(dict(type='constant', value=2.0), 0.5)
        assert operation.row(dict(nrmse=0.5, participation_ratio=1.0))[
            'distortion'] == 'constant'
        assert (operation.distortion(level) == 2).all()
    finally:
        del DISTORTIONS.module_dict['constant']
