import math

import pytest
import torch

from mmfeatjnd.coding import decode_image, encode_image
from mmfeatjnd.functional import (
    Allocation,
    Level,
    Steps,
    bisect_scale,
    code_length,
    dequantize,
    gaussian_noise,
    image_keys,
    meets_target,
    modelled_noise,
    nrmse,
    quantize,
    saturated,
    to_tokens,
)
from mmfeatjnd.functional.symbols import MAX_SYMBOL
from mmfeatjnd.models import Quantization, StepPolicy
from mmfeatjnd.registry import STEP_POLICIES

POLICIES = [
    'featjnd', 'permuted-steps', 'one-step', 'range', 'gradient',
    'water-filling', 'clip-uniform'
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
        noise(0) * scale,
        image_keys(ids),
        stream,
        envelope=(noise(1) - 1).exp() * scale,
        sensitivity=noise(2).square())


def build(name, **kwargs):
    return STEP_POLICIES.build(dict(type=name, **kwargs))


def apply(allocation, feature):
    """Symbols and values."""
    quantized, value = quantize(feature, allocation)
    return quantized.symbols, value


def test_these_are_all():
    Quantization()  # imports them
    # see test_token_maps.py and test_make_plan.py for the others
    others = {'token-map', 'plan'}
    assert set(STEP_POLICIES.module_dict) == {*POLICIES, *others}


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
    if name == 'clip-uniform':
        return  # a range ends where the features do
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
    pairs = zip((*alone.steps, *alone[1:3]), (*batch.steps, *batch[1:3]))
    return all(a is b is None or torch.allclose(a, b[i], rtol=1e-5)
               for a, b in pairs)


@pytest.mark.parametrize('granularity, exponents', [
    ('tensor', {}),
    ('token', {'token': (2, 1, 5, 6)}),
    ('channel', {'channel': (2, 4, 1, 1)}),
    ('channel-token', {'token': (2, 1, 5, 6), 'channel': (2, 4, 1, 1)}),
    ('element', {'element': (2, 4, 5, 6)}),
])
@pytest.mark.parametrize('name', ['featjnd', 'permuted-steps', 'gradient'])
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
    level = Level(torch.ones(1, 4, 2), image_keys([0]), envelope=envelope)
    at = build('featjnd', jnd_rounding=True, power=1)(level)
    steps, rounding, bounds, _ = at(ONE)
    torch.testing.assert_close(
        steps.size(level.feature), torch.tensor([[[2.], [2.], [8.], [8.]]]))
    # rho = clip(1 - E / Delta, 0, 1/2): who tolerates more than half of the
    # step rounds further towards 0
    torch.testing.assert_close(
        rounding, torch.tensor([[[.5, .5], [.5, .5], [.5, 0.], [.5, 0.]]]))
    assert bounds is None
    # at another scale, the same elements do
    torch.testing.assert_close(at(3 * ONE).rounding, rounding)
    plain = build('featjnd', power=1)(level)(ONE)
    assert plain.rounding is None and torch.equal(plain.steps.base, steps.base)
    # the root of the JND: of 1, 1, 4 and 4
    steps = build('featjnd')(level)(ONE).steps
    torch.testing.assert_close(
        steps.size(level.feature), torch.tensor([[[2.], [2.], [4.], [4.]]]))


def test_channel_token_is_separable():
    envelope = torch.tensor([1., 2., 4.])[:, None] * torch.tensor([1., 16.])
    level = Level(torch.ones(1, 3, 2), image_keys([0]),
                  envelope=envelope[None])
    steps = build('featjnd', granularity='channel-token',
                  power=1)(level)(ONE).steps
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
    other = build('permuted-steps', **kwargs)(level)(torch.ones(2)).steps
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
        build(name, jnd_rounding=True)(level)(torch.ones(2))
        for name in ('featjnd', 'permuted-steps'))
    # wherever it went, half the JND is left below what is rounded up
    kept = [
        ((1 - x.rounding) * x.steps.size(level.feature)).flatten().sort()[0]
        for x in (ours, other)
    ]
    torch.testing.assert_close(*kept)
    assert not torch.equal(ours.rounding, other.rounding)


def test_permuted_depends_on_seed_and_level():
    level = make_level('map')
    policy = build('permuted-steps')

    def token(level):
        return policy(level)(torch.ones(2)).steps.token

    assert torch.equal(token(level), token(level))
    assert not torch.equal(token(level), token(level._replace(stream=1)))
    other = level._replace(keys=image_keys([5, 6], seed=1))
    assert not torch.equal(token(level), token(other))
    assert policy.random and not build('featjnd').random


def test_uniform_by_hand():
    level = Level(torch.tensor([[3., 4.], [0., 0.]]), image_keys([0, 1]))
    steps = build('one-step')(level)(torch.tensor([2., 1.])).steps
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
    level = make_level('map', (1, ))
    feature = level.feature
    feature[:, 0] *= 0.1
    allocation = build('water-filling')(level)(ONE)
    steps = allocation.steps
    symbols, value = apply(allocation, feature)
    # power below Delta^2 / 12
    power = feature.square().mean((2, 3))[0]
    dropped = power < steps.base**2 / 12
    assert dropped.tolist() == [True, False, False, False]
    assert not symbols[:, dropped].any() and not value[:, dropped].any()
    assert all(symbols[0, c].any() for c in (1, 2, 3))
    # the others share one step
    assert set(steps.channel[0, ~dropped].flatten().tolist()) == {0}


@pytest.mark.parametrize('bins', [2, 4, 7])
@pytest.mark.parametrize('layout', SHAPES)
def test_clip_uniform(layout, bins):
    level = make_level(layout, (1, ))
    level = level._replace(feature=level.feature + 1)
    feature = level.feature
    at = build('clip-uniform', bins=bins)(level)
    symbols, value = apply(at(ONE), feature)
    assert int(symbols.max() - symbols.min()) < bins
    # whatever is near 0 is 0, for any number of bins
    near = feature.abs() < at(ONE).steps.base / 2.01
    assert not value[near].any()
    # scale 1 has the least squared error
    error = (value - feature).square().mean()
    for scale in (0.3, 0.7, 1.5, 3.):
        other = apply(at(scale * ONE), feature)[1]
        assert (other - feature).square().mean() >= error * 0.999
    # and no scale makes a range wider than the features'
    _, widest = build('clip-uniform').limits(feature, at)
    for scale in (widest, 3 * widest, 1e6 * ONE):
        bounds = at(scale).bounds
        torch.testing.assert_close(bounds, at(widest).bounds)
        assert bounds.abs().max() <= feature.abs().max() * bins
        assert (apply(at(scale), feature)[1] - feature).square().mean() \
            <= feature.square().mean()


@pytest.mark.parametrize('name, kwargs, message', [
    ('featjnd', dict(granularity='pixel'), "but got 'pixel'"),
    ('permuted-steps', dict(granularity='pixel'), "but got 'pixel'"),
    ('gradient', dict(granularity='pixel'), "but got 'pixel'"),
    ('clip-uniform', dict(bins=1), 'at least 2 and at most 32767, but got 1'),
    ('clip-uniform', dict(bins=70000), 'but got 70000'),
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
    level = make_level('map', (5, ))
    feature = level.feature
    for policy, ratio in (('checkerboard', 2),
                          (dict(type='checkerboard', octaves=3), 8)):
        operation = Quantization(policy, scale=0.25)
        assert operation.name == "policy='checkerboard'"
        allocation = operation.policy(level)(0.25 * ONE)
        quantized, value = quantize(feature, allocation)
        steps = allocation.steps
        assert steps.size(feature).unique().tolist() == [0.25, 0.25 * ratio]
        error = (value - feature).abs().flatten(2).amax((0, 1))
        assert (error[::2] <= 0.1251).all()
        assert (error[1::2] <= 0.1251 * ratio).all()
        assert (error[1::2] > 0.1251).any()
        item, = decode_image(encode_image([quantized]))
        assert torch.equal(dequantize(item), value)
        # its search ends where its symbols do
        at = operation.policy(level)
        finest, _ = operation.policy.limits(feature, at)
        assert apply(at(finest), feature)[0].abs().max() == MAX_SYMBOL - 1


# ----------------------------------------------------------------- the search
def search(policy, level, **budget):
    """Rate, noise, saturation and success of each image."""
    feature = level.feature
    at = policy(level)
    finest, coarsest = policy.limits(feature, at)

    def rate(scale):
        quantized, _ = quantize(feature, at(scale))
        return code_length(quantized) / math.prod(feature.shape[1:])

    def noise(scale):
        return nrmse(apply(at(scale), feature)[1] - feature, feature)

    measure, target = ((rate, budget['bits']) if 'bits' in budget else
                       (noise, budget['noise_budget']))
    scale = bisect_scale(measure, torch.full((len(feature), ), target),
                         measure is noise, finest, coarsest)
    symbols = apply(at(scale), feature)[0]
    return (rate(scale), noise(scale), saturated(symbols),
            meets_target(measure(scale), target))


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_no_search_ends_where_symbols_saturate(name, layout):
    """An outlier of 3000 in one of two images."""
    level = make_level(layout)
    level.feature[0].view(-1)[1] = 3000.
    policy = build(name)
    for budget in (dict(bits=16.), dict(bits=1e9), dict(noise_budget=1e-12)):
        rate, noise, share, success = search(policy, level, **budget)
        assert not share.any()
        assert not success.any() or budget == dict(bits=16.)
        # the least that these steps can do, in place of 0.9
        assert name == 'clip-uniform' or noise.max() < 5e-3
        assert noise.max() < 1 and rate.isfinite().all()
    # more than rounding all of it to 0 makes
    assert not search(policy, level, noise_budget=5.)[3].any()


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_the_limits_hold_all_there_is(name, layout):
    level = make_level(layout)
    policy = build(name)
    at = policy(level)
    finest, coarsest = policy.limits(level.feature, at)
    assert finest.shape == coarsest.shape == (2, )
    assert finest.dtype == torch.float32 and (finest < coarsest).all()
    fine, coarse = (
        apply(at(scale), level.feature)[0].flatten(1).abs().amax(1)
        for scale in (finest, coarsest))
    if name != 'clip-uniform':
        assert coarse.tolist() == [0, 0]
        assert fine.tolist() == [MAX_SYMBOL - 1] * 2
    # of an image alone as in a batch
    alone = make_level(layout, (6, ))
    for got, whole in zip(
            policy.limits(alone.feature, policy(alone)), (finest, coarsest)):
        torch.testing.assert_close(got[0], whole[1])


def test_water_filling_counts_the_channels_that_it_drops():
    """At scale 1 the only spike stands in a channel without power; at the
    finest scale nothing is dropped, and it is the largest value."""
    feature = torch.ones(1, 2, 20, 20)
    feature[0, 1] = 0
    feature[0, 1, 0, 0] = 2.
    policy = build('water-filling')
    at = policy(Level(feature, image_keys([0])))
    assert (at(ONE).steps.channel[0, 1] > 0).all()
    finest, _ = policy.limits(feature, at)
    symbols, _ = apply(at(finest), feature)
    assert symbols.abs().max() == MAX_SYMBOL - 1
    assert not saturated(symbols).any()


@pytest.mark.parametrize('bins', [2, 3, 4, 8, 16])
@pytest.mark.parametrize('two_sided', [True, False])
def test_clipping_cannot_explode(bins, two_sided):
    """At 0.1 to 0.9 bits the range was once stretched 14 times, to an NRMSE
    of 5.8, and of 1364 on alternating signs."""
    level = make_level('map')
    feature = level.feature if two_sided else level.feature.relu()
    alternating = torch.ones_like(feature)
    alternating[..., ::2] *= -1
    policy = build('clip-uniform', bins=bins)
    for x in (feature, alternating):
        noises = []
        for bits in (2., 0.9, 0.5, 0.1):
            rate, noise, _, success = search(
                policy, level._replace(feature=x), bits=bits)
            assert noise.max() <= 1
            assert torch.equal(success, meets_target(rate, bits))
            noises.append(noise)
        for a, b in zip(noises, noises[1:]):
            assert (a <= b).all()


@pytest.mark.parametrize('name', POLICIES)
def test_double_precision(name):
    level = make_level('map')
    double = Level(*(x.double() if torch.is_tensor(x) and x.is_floating_point(
    ) else x for x in level))
    at, expected = build(name)(double), build(name)(level)
    two = torch.full((2, ), 0.7)
    assert equal(at(two), expected(two))
    symbols, value = apply(at(two), double.feature)
    assert symbols.dtype == value.dtype == torch.float32
    # rounding may fall either way where a value lies between two symbols
    assert (symbols != apply(expected(two), level.feature)[0]).float(
    ).mean() < 0.01
    for a, b in zip(build(name).limits(double.feature, at),
                    build(name).limits(level.feature, expected)):
        torch.testing.assert_close(a, b)


# ------------------------------------------------------------- what is broken
@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_a_broken_image_breaks_no_other(name, layout):
    """A NaN, in the feature or in what an estimator made of it, must come out
    as one: as noise, as bits, and as the result of a search."""
    whole = make_level(layout, 'abc')
    expected = build(name)(whole)(torch.ones(3))
    symbols, value = apply(expected, whole.feature)
    for field, need in (('feature', None), ('envelope', 'needs_jnd'),
                        ('sensitivity', 'needs_sensitivity')):
        broken = whole._replace(**{field: getattr(whole, field).clone()})
        getattr(broken, field)[1].view(-1)[2] = math.nan
        policy = build(name)
        if need and not getattr(policy, need):
            continue
        allocation = policy(broken)(torch.ones(3))
        got, values = apply(allocation, broken.feature)
        assert torch.equal(got[::2], symbols[::2])
        assert torch.equal(values[::2], value[::2])
        noise = nrmse(values - broken.feature, broken.feature)
        assert noise.isnan().tolist() == [False, True, False]
        bits = code_length(quantize(broken.feature, allocation)[0])
        assert bits.isnan().tolist() == [False, True, False]
        for budget in (dict(bits=1.), dict(noise_budget=0.5)):
            rate, noise, _, success = search(policy, broken, **budget)
            assert rate.isnan().tolist() == [False, True, False]
            assert noise.isnan().tolist() == [False, True, False]
            assert not success[1]


@pytest.mark.parametrize('shape', [(1, 1, 1), (1, 1), (1, ), (3, 2, 2),
                                   (4, )])
@pytest.mark.parametrize('name', POLICIES)
def test_odd_features(name, shape):
    """Zeros, constants, single values, no images: steps that are positive,
    values that are finite, and a search that ends."""
    constant = torch.tensor([0., 3., -1e-3, 1e30]).view(
        -1, *[1] * len(shape)).expand(4, *shape).clone()
    for feature in (constant, constant[:1], constant[:0]):
        level = Level(
            feature,
            image_keys(range(len(feature))),
            envelope=feature.abs() / 3,
            sensitivity=feature.abs().clamp(max=1))
        policy = build(name)
        for budget in (dict(bits=1.), dict(noise_budget=0.3)):
            rate, noise, share, _ = search(policy, level, **budget)
            assert rate.isfinite().all() and noise.isfinite().all()
            assert not share.any() and (noise <= 1.0001).all()
            assert not len(noise) or noise[0] == 0


def test_a_power_is_of_the_jnd_in_units_of_the_channels():
    class Units:

        @staticmethod
        def channel_unit(feature):
            return torch.tensor([[[2.0, 0.0]]])

    # 4 and 1 deviations; the second channel never fired
    envelope = torch.tensor([[[8.0, 0.0], [2.0, 0.0]]])
    level = Level(torch.ones(1, 2, 2), image_keys([0]), envelope=envelope,
                  estimator=Units)
    for power, expected in ((1, [8, 2]), (0.5, [4, 2]), (0, [2, 2])):
        steps = build('featjnd', granularity='element',
                      power=power)(level)(ONE).steps
        torch.testing.assert_close(
            steps.size(level.feature)[0, :, 0],
            2.0 * torch.tensor(expected).float(), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match='power must be at least 0'):
        build('featjnd', power=-1)
