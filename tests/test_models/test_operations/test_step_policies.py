from types import SimpleNamespace

import pytest
import torch

from mmfeatjnd.functional import (
    Level,
    Steps,
    gaussian_noise,
    image_keys,
    modelled_noise,
    to_tokens,
)
from mmfeatjnd.models import Quantization, StepPolicy
from mmfeatjnd.models.operations.step_policies import Allocation
from mmfeatjnd.registry import STEP_POLICIES

POLICIES = [
    'featjnd', 'permuted', 'uniform', 'range', 'gradient', 'water-filling',
    'clip-uniform'
]
SHAPES = dict(map=(4, 5, 6), tokens=(7, 4), vector=(4, ))
ONE = torch.ones(1)


def channels(values, shape):
    """Values for the four channels, in the layout."""
    view = [1] * (len(shape) + 1)
    view[2 if len(shape) == 2 else 1] = 4
    return torch.tensor(values).view(view)


def make_level(layout, ids=(5, 6), stream=0):
    """Features with unequal channels, an envelope and a gradient."""
    shape = SHAPES[layout]

    def noise(seed):
        return gaussian_noise(image_keys(ids, seed), shape)

    scale = channels([0.5, 1., 2., 3.], shape)
    return Level(
        noise(0) * scale, image_keys(ids), stream,
        (noise(1) - 1).exp() * scale, noise(2).square())


def build(name, **kwargs):
    return STEP_POLICIES.build(dict(type=name, **kwargs))


def test_these_are_all():
    Quantization()  # imports them
    assert set(STEP_POLICIES.module_dict) == set(POLICIES)


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_every_policy_on_every_layout(name, layout):
    level = make_level(layout)
    at = build(name)(level)
    allocation = at(torch.tensor([1., 3.]))
    assert isinstance(allocation, Allocation)
    size = allocation.steps.size(level.feature).expand(level.feature.shape)
    assert size.dtype == torch.float32
    assert size.isfinite().all() and (size > 0).all()
    for exponent in (allocation.steps.token, allocation.steps.channel,
                     allocation.steps.element):
        assert exponent is None or exponent.dtype == torch.int32
    if name == 'water-filling':
        return  # what it drops depends on the scale
    # the second image has three times the steps of scale 1
    one = at(torch.ones(2)).steps.size(level.feature)
    torch.testing.assert_close(size[0], one.expand(size.shape)[0])
    torch.testing.assert_close(size[1], 3 * one.expand(size.shape)[1])


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_an_image_gets_the_same_steps_in_any_batch(name, layout):
    policy = build(name)

    def run(*ids):
        return policy(make_level(layout, ids))(torch.ones(len(ids)))

    batch = run('a', 'b', 'c')
    assert equal(run('a', 'b', 'c'), batch)
    for i, name in enumerate('abc'):
        assert equal(run(name), batch, i)


def equal(alone, batch, i=slice(None)):
    pairs = zip((*alone.steps, *alone[1:]), (*batch.steps, *batch[1:]))
    return all(a is b is None or torch.allclose(a, b[i], rtol=1e-5)
               for a, b in pairs)


@pytest.mark.parametrize('granularity, exponents', [
    ('tensor', {}),
    ('token', {'token': (2, 1, 5, 6)}),
    ('channel', {'channel': (2, 4, 1, 1)}),
    ('channel-token', {'token': (2, 1, 5, 6), 'channel': (2, 4, 1, 1)}),
    ('element', {'element': (2, 4, 5, 6)}),
])
@pytest.mark.parametrize('name', ['featjnd', 'permuted', 'gradient'])
def test_granularity(name, granularity, exponents):
    steps = build(
        name, granularity=granularity)(make_level('map'))(torch.ones(2)).steps
    given = {
        k: tuple(getattr(steps, k).shape)
        for k in ('token', 'channel', 'element')
        if getattr(steps, k) is not None
    }
    assert given == exponents


# ------------------------------------------------------------------- by hand
def test_featjnd_by_hand():
    # of a token's elements, the geometric mean counts
    envelope = torch.tensor([[[1., 1.], [1., 1.], [2., 8.], [1., 16.]]])
    level = Level(torch.ones(1, 4, 2), image_keys([0]), 0, envelope)
    at = build('featjnd', granularity='token')(level)
    steps, rounding, bounds = at(ONE)
    torch.testing.assert_close(
        steps.size(level.feature), torch.tensor([[[2.], [2.], [8.], [8.]]]))
    # rho = clip(1 - E / Delta, 0, 1/2): who tolerates more than half of the
    # step rounds further towards 0
    torch.testing.assert_close(
        rounding, torch.tensor([[[.5, .5], [.5, .5], [.5, 0.], [.5, 0.]]]))
    assert bounds is None
    # at another scale, the same elements do
    torch.testing.assert_close(at(3 * ONE).rounding, rounding)
    plain = build('featjnd', granularity='token', jnd_rounding=False)
    assert plain(level)(ONE).rounding is None


def test_channel_token_is_separable():
    envelope = torch.tensor([1., 2., 4.])[:, None] * torch.tensor([1., 16.])
    level = Level(torch.ones(1, 3, 2), image_keys([0]), 0, envelope[None])
    steps = build('featjnd')(level)(ONE).steps
    # half octaves: a factor of 2 is 2
    assert steps.token.flatten().tolist() == [-2, 0, 2]
    assert steps.channel.flatten().tolist() == [-4, 4]
    torch.testing.assert_close(
        steps.size(level.feature), 2 * envelope[None], rtol=1e-5, atol=0)


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('granularity', ['token', 'channel-token', 'element'])
def test_permuted_keeps_the_steps(layout, granularity):
    level = make_level(layout)
    kwargs = dict(granularity=granularity)
    steps = build('featjnd', **kwargs)(level)(torch.ones(2)).steps
    other = build('permuted', **kwargs)(level)(torch.ones(2)).steps
    torch.testing.assert_close(other.base, steps.base)
    if granularity == 'channel-token':
        assert torch.equal(other.channel, steps.channel)
    size = to_tokens(steps.size(level.feature).expand(level.feature.shape))
    moved = to_tokens(other.size(level.feature).expand(level.feature.shape))
    # every channel has the same steps, elsewhere
    torch.testing.assert_close(size.sort(1).values, moved.sort(1).values)
    torch.testing.assert_close(
        modelled_noise(other, level.feature),
        modelled_noise(steps, level.feature))
    if layout != 'vector':
        assert not torch.equal(size, moved)


def test_permuted_moves_the_rounding_with_its_steps():
    level = make_level('map')
    ours, other = (
        build(name)(level)(torch.ones(2)) for name in ('featjnd', 'permuted'))
    # wherever it went, half the JND is left below what is rounded up
    kept = [
        ((1 - x.rounding) * x.steps.size(level.feature)).flatten().sort()[0]
        for x in (ours, other)
    ]
    torch.testing.assert_close(*kept)
    assert not torch.equal(ours.rounding, other.rounding)


def test_permuted_depends_on_seed_and_level():
    level = make_level('map')
    policy = build('permuted')

    def token(level):
        return policy(level)(torch.ones(2)).steps.token

    assert torch.equal(token(level), token(level))
    assert not torch.equal(token(level), token(level._replace(stream=1)))
    other = level._replace(keys=image_keys([5, 6], seed=1))
    assert not torch.equal(token(level), token(other))
    assert policy.random and not build('featjnd').random


def test_uniform_by_hand():
    level = Level(torch.tensor([[3., 4.], [0., 0.]]), image_keys([0, 1]))
    steps = build('uniform')(level)(torch.tensor([2., 1.])).steps
    assert steps.token is steps.channel is steps.element is None
    # an image without energy: any step will do
    torch.testing.assert_close(steps.base, torch.tensor([2 * 12.5**0.5, 1.]))


def test_range_by_hand():
    tokens = torch.tensor([[[1., -2.], [0., 0.], [8., 3.]]])
    steps = build('range')(Level(tokens, image_keys([0])))(ONE).steps
    # a dead token gets the mean of the others
    torch.testing.assert_close(
        steps.size(tokens).flatten(), torch.tensor([2., 4., 8.]))


def test_gradient_steps_are_small_where_the_task_looks():
    feature = torch.ones(1, 4, 2, 2)
    weight = torch.ones(1, 4, 2, 2)
    weight[:, 1] *= 100
    weight[:, :, 0, 1] *= 100
    level = Level(feature, image_keys([0]), sensitivity=weight)
    steps = build('gradient')(level)(ONE).steps
    assert steps.channel.flatten().argmin() == 1
    assert steps.token.flatten().argmin() == 1
    # the scale's unit: geometric mean = RMS of the feature
    torch.testing.assert_close(steps.base, ONE, rtol=1e-5, atol=0)
    # a task that is indifferent: one step
    flat = level._replace(sensitivity=torch.zeros_like(weight))
    size = build('gradient')(flat)(ONE).steps.size(feature)
    torch.testing.assert_close(size.expand(feature.shape), feature)


def test_water_filling_drops_weak_channels():
    operation = Quantization('water-filling', scale=1.0)
    feature = make_level('map', (1, )).feature
    feature[:, 0] *= 0.1
    operation.start(None, 1)
    out = operation(feature, 0, SimpleNamespace(split='backbone'))
    level, steps, _ = operation.quantized[0]
    # power below Delta^2 / 12
    power = feature.square().mean((2, 3))[0]
    dropped = power < steps.base**2 / 12
    assert dropped.tolist() == [True, False, False, False]
    assert not level[:, dropped].any() and not out[:, dropped].any()
    assert all(level[0, c].any() for c in (1, 2, 3))
    # the others share one step
    assert set(steps.channel[0, ~dropped].flatten().tolist()) == {0}


@pytest.mark.parametrize('levels', [2, 4, 7])
def test_clip_uniform(levels):
    operation = Quantization(dict(type='clip-uniform', levels=levels))
    feature = 1 + make_level('map', (1, )).feature
    operation.start(None, 1)
    out = operation(feature, 0, SimpleNamespace(split='backbone'))
    values = out.unique()
    assert len(values) <= levels
    assert feature.min() < values.min() and values.max() < feature.max()
    level, steps, _ = operation.quantized[0]
    assert int(level.max() - level.min()) < levels
    # scale 1 has the least squared error
    error = (out - feature).square().mean()
    for scale in (0.5, 2.):
        other = Quantization(
            dict(type='clip-uniform', levels=levels), scale=scale)
        other.start(None, 1)
        worse = other(feature, 0, SimpleNamespace(split='backbone'))
        assert (worse - feature).square().mean() > error


@pytest.mark.parametrize('name, kwargs, message', [
    ('featjnd', dict(granularity='pixel'), "but got 'pixel'"),
    ('permuted', dict(granularity='pixel'), "but got 'pixel'"),
    ('clip-uniform', dict(levels=1), 'at least 2, but got 1'),
])
def test_errors(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)


# ---------------------------------------------------------- a policy of yours
@pytest.fixture
def checkerboard():

    @STEP_POLICIES.register_module(name='checkerboard')
    class Checkerboard(StepPolicy):
        """Every second token has a step that is 2^n larger."""

        def __init__(self, octaves=1):
            self.octaves = octaves

        def __call__(self, level):
            like = level.feature[:, :1]
            odd = torch.arange(like[0].numel()) % 2
            token = (2 * self.octaves * odd).view(1, *like.shape[1:])
            steps = Steps(torch.ones(len(like)),
                          token.expand(like.shape).int())
            return lambda scale: Allocation(steps.scaled(scale))

    yield
    STEP_POLICIES.module_dict.pop('checkerboard')


def test_a_policy_of_yours(checkerboard):
    feature = make_level('map').feature
    for policy, ratio in (('checkerboard', 2),
                          (dict(type='checkerboard', octaves=3), 8)):
        operation = Quantization(policy, scale=0.25)
        operation.start(None, 2)
        out = operation(feature, 0, SimpleNamespace(split='backbone'))
        _, steps, _ = operation.quantized[0]
        assert steps.size(feature).unique().tolist() == [0.25, 0.25 * ratio]
        error = (out - feature).abs().flatten(2).amax((0, 1))
        assert (error[::2] <= 0.1251).all()
        assert (error[1::2] <= 0.1251 * ratio).all()
        assert (error[1::2] > 0.1251).any()
        assert operation.measured()['coded_bytes'].min() > 20
        assert operation.name == "policy='checkerboard'"
