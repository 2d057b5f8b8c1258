import functools
from typing import NamedTuple

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
from mmfeatjnd.functional.sensitivity import ROOT_3
from mmfeatjnd.models import (
    ConvEstimator,
    TokenEstimator,
    build_distortion,
    distortion_names,
)

NAMES = distortion_names()
#: Those that are no noise by a map of the estimator's.
MAPS = [n for n in NAMES if build_distortion(n).modes == ('sensitivity', )]

SHAPES = [(3, 6, 4, 5), (3, 10, 6), (3, 6)]


@functools.lru_cache(maxsize=None)
def make_estimator(shape, mode):
    """One that has counted something, of every statistic."""
    torch.manual_seed(0)
    kind = ConvEstimator if len(shape) == 4 else TokenEstimator
    channels = shape[2] if len(shape) == 3 else shape[1]
    estimator = kind(channels, hidden_channels=8, mode=mode).eval()
    estimator.channels.mean_square.uniform_(1, 2)
    if mode == 'sensitivity':
        for buffer in (estimator.known.map, estimator.known.others):
            buffer.normal_()
    return estimator.requires_grad_(False)


class Metric(NamedTuple):
    basis: torch.Tensor
    root: torch.Tensor


def make_metric(channels):
    """All but the last channel is seen, the first best."""
    seen = torch.arange(channels, 0, -1.0)
    return Metric(torch.eye(channels)[:, :-1], torch.diag(seen.rsqrt()))


def make_level(shape, stream=0, ids=(0, 1, 2), mode='signed', **kwargs):
    keys = image_keys(ids)
    size = (3, *shape[1:])  # of one estimator, whatever the batch
    every = {
        'feature': gaussian_noise(keys, shape[1:], 90),
        'sensitivity': gaussian_noise(keys, shape[1:], 92).square(),
        'estimator': make_estimator(size, mode),
        'metric': make_metric(shape[2] if len(shape) == 3 else shape[1]),
    }
    if len(shape) == 4:
        inside = torch.zeros(len(ids), 1, *shape[2:], dtype=torch.bool)
        inside[..., :2] = True
        every['detected'] = inside
    every.update(kwargs)
    return Level(keys=keys, stream=stream, **every)


def mode_of(name):
    return 'sensitivity' if name in MAPS else 'signed'


@pytest.mark.parametrize('name, shape', [
    (name, shape) for name in NAMES for shape in SHAPES
    if name != 'outside-boxes' or len(shape) == 4
])
def test_every_distortion_belongs_to_the_image(name, shape):
    level = make_level(shape, stream=2, mode=mode_of(name))
    delta = build_distortion(name)(level)
    assert delta.shape == shape and delta.dtype == torch.float32
    assert delta.abs().sum() > 0
    alone = make_level(
        (1, *shape[1:]), stream=2, ids=(1, ), mode=mode_of(name))
    torch.testing.assert_close(build_distortion(name)(alone)[0], delta[1])


@pytest.mark.parametrize('name', NAMES)
def test_streams_matter_where_there_is_randomness(name):
    level = make_level((3, 6, 4, 5), mode=mode_of(name))
    same = torch.equal(build_distortion(name)(level),
                       build_distortion(name)(level._replace(stream=1)))
    assert same == (not build_distortion(name).random)


@pytest.mark.parametrize('name', NAMES)
def test_needs_are_declared(name):
    """A distortion runs on what it declares and nothing more."""
    level = make_level((3, 6, 4, 5), mode=mode_of(name))
    distortion = build_distortion(name)
    if not distortion.needs_jnd:
        level = level._replace(estimator=None)
    if not distortion.needs_sensitivity:
        level = level._replace(sensitivity=None)
    if not distortion.needs_detections:
        level = level._replace(detected=None)
    distortion(level)


def test_simple_ones():
    level = make_level((3, 6, 4, 5), stream=1)
    shape = (6, 4, 5)
    signed = level.estimator(level.feature)
    expected = {
        'featjnd': signed,
        'sign-flipped': -signed,
        'shrinkage': -level.feature,
        'amplification': level.feature,
        'gaussian': gaussian_noise(level.keys, shape, 1),
        'uniform-noise': ROOT_3 * uniform_noise(level.keys, shape, 1),
    }
    for name, delta in expected.items():
        assert torch.equal(build_distortion(name)(level), delta), name


@pytest.mark.parametrize('shape', SHAPES[:2])
def test_permuted_moves_whole_tokens(shape):
    level = make_level(shape)
    before = to_tokens(level.estimator(level.feature))
    after = to_tokens(build_distortion('permuted')(level))
    assert not torch.equal(before, after)
    for a, b in zip(before, after):
        assert sorted(map(tuple, a.tolist())) == sorted(
            map(tuple, b.tolist()))


@pytest.mark.parametrize('shape', SHAPES)
def test_channel_shuffled_moves_whole_channels(shape):
    level = make_level(shape)
    before = to_tokens(level.estimator(level.feature)).transpose(1, 2)
    after = to_tokens(
        build_distortion('channel-shuffled')(level)).transpose(1, 2)
    assert not torch.equal(before, after)
    for a, b in zip(before, after):
        assert sorted(map(tuple, a.tolist())) == sorted(
            map(tuple, b.tolist()))


def test_images_are_permuted_independently():
    feature = torch.arange(30.).view(1, 30, 1).expand(2, 30, 2)
    level = make_level((2, 30, 2), ids=(0, 1), feature=feature)
    first, second = build_distortion('permuted')(level)
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


@pytest.mark.parametrize('mode', ('sensitivity', 'signed'))
@pytest.mark.parametrize('name', NAMES)
def test_noise_is_its_deviation_times_white_noise(name, mode):
    distortion = build_distortion(name)
    if mode not in distortion.modes:
        return
    level = make_level((3, 6, 9, 9), mode=mode)
    std = distortion.std(level)
    delta = distortion(level)
    if std is None:  # a change that is no noise
        return
    white = distortion.white(level)
    assert torch.equal(delta, std * white)
    assert white.std() == pytest.approx(1, abs=0.05)
    assert white.mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize('shape', SHAPES)
def test_noise_by_a_metric(shape):
    level = make_level(shape, stream=1)
    noise = gaussian_noise(level.keys, shape[1:], 1)
    channels = to_tokens(noise).size(2)
    seen = torch.arange(channels, 0, -1.0)
    hidden = to_tokens(build_distortion('null-space')(level))
    assert not hidden[..., :-1].any()
    torch.testing.assert_close(hidden[..., -1], to_tokens(noise)[..., -1])
    for name in ('closed-form', 'lateral'):
        shaped = to_tokens(build_distortion(name)(level))
        torch.testing.assert_close(shaped, to_tokens(noise) / seen.sqrt())
    # of a metric without a null space nothing is left
    whole = level._replace(metric=Metric(
        torch.linalg.qr(torch.randn(channels, channels))[0],
        torch.eye(channels)))
    assert not build_distortion('null-space')(whole).any()
