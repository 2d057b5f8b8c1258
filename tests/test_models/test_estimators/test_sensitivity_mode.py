"""Estimators of how sensitive the task is to noise on a token."""
import math

import pytest
import torch
from torch import nn

from mmfeatjnd.functional import (
    channel_dim,
    gaussian_noise,
    image_keys,
    uniform_noise,
)
from mmfeatjnd.models import ConvEstimator, StaticEstimator, TokenEstimator

STD = torch.tensor([0.5, 1., 2., 4., 8., 16.])
CASES = [
    (ConvEstimator, (3, 6, 4, 5), (3, 1, 4, 5)),
    (TokenEstimator, (3, 7, 6), (3, 7, 1)),
    (TokenEstimator, (3, 6), (3, 1)),
]


def make(cls, **kwargs):
    torch.manual_seed(0)
    if cls is not StaticEstimator:
        kwargs.setdefault('hidden_channels', 8)
    estimator = cls(6, **kwargs)
    estimator.channels.mean_square.copy_(STD**2)
    return estimator


def noise(shape, seed=0):
    return gaussian_noise(image_keys(range(shape[0]), seed), shape[1:])


def over(values, like):
    shape = [1] * like.dim()
    shape[channel_dim(like)] = -1
    return values.view(shape)


def make_feature(shape, seed=0):
    x = noise(shape, seed)
    return x * over(STD, x)


def tokens_of(x):
    """(B, T) of what has one channel."""
    return x.flatten(1)


@pytest.mark.parametrize('cls, shape, expected', [
    *CASES,
    (StaticEstimator, (3, 6, 4, 5), (3, 1, 4, 5)),
    (StaticEstimator, (3, 7, 6), (3, 7, 1)),
    (StaticEstimator, (3, 6), (3, 1)),
])
def test_one_number_a_token(cls, shape, expected):
    estimator, feature = make(cls).eval(), make_feature(shape)
    assert estimator.mode == 'sensitivity'
    log_w = estimator.log_sensitivity(feature.bfloat16())
    assert log_w.shape == expected and log_w.dtype == torch.float32
    bound = estimator(feature)
    assert bound.shape == shape and bound.dtype == torch.float32
    # white over the channels in units of their deviations
    unit = bound / over(STD, bound)
    torch.testing.assert_close(
        unit, unit.narrow(channel_dim(unit), 0, 1).expand_as(unit))
    assert (bound > 0).all()


@pytest.mark.parametrize('cls, shape, _', CASES)
def test_its_distortion_is_uniform_noise(cls, shape, _):
    estimator, feature = make(cls).eval(), make_feature(shape)
    bound, keys = estimator(feature), image_keys(range(3))
    delta = estimator.distortion(bound, keys, 3)
    assert (delta.abs() < bound).all() and (delta < 0).any()
    assert torch.equal(delta, bound * uniform_noise(keys, shape[1:], 3))


@pytest.mark.parametrize('cls, shape, _', CASES)
def test_level_and_map_are_apart(cls, shape, _):
    """The map has no mean, and the level is the same for all tokens."""
    estimator, feature = make(cls).eval(), make_feature(shape)
    estimator.known.gain.fill_(-3)
    both = tokens_of(estimator.log_sensitivity(feature))
    with torch.no_grad():
        estimator.level.bias += 2
    torch.testing.assert_close(
        tokens_of(estimator.log_sensitivity(feature)), both + 2)
    nn.init.zeros_(estimator.level.weight)
    nn.init.zeros_(estimator.level.bias)
    map_ = tokens_of(estimator.log_sensitivity(feature))
    torch.testing.assert_close(map_.mean(1), torch.full((3, ), -3.))
    # a vector is one token: a level and no map
    assert (map_.std(1, correction=0) > 0.01).all() == (len(shape) > 2)
    # what is left is a level, another one for each image
    level = both - map_
    torch.testing.assert_close(level, level[:, :1].expand_as(level))
    assert level[:, 0].std() > 1e-3


@pytest.mark.parametrize('cls, shape, _', CASES)
def test_it_sees_deviations_from_the_mean(cls, shape, _):
    """Neither the unit of a channel nor an offset changes anything."""
    feature = make_feature(shape)
    found = []
    for offset, factor in ((0., 1.), (100., 7.)):
        estimator = make(cls)
        x = (feature + offset * over(STD, feature)) * factor
        estimator.follow([x])
        found.append(estimator.log_sensitivity(x))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


# ----------------------------------------------------------------- statistics
@pytest.mark.parametrize('cls, shape, _', CASES)
def test_statistics_of_the_channels(cls, shape, _):
    """As if all batches of equal size were one."""
    estimator = make(cls)
    batches = [make_feature(shape, i) + i for i in range(5)]
    for batch in batches:
        estimator.follow([batch[:1], batch[1:]])  # images of two sizes
    whole = torch.cat(batches)
    dims = [d for d in range(len(shape)) if d != channel_dim(whole)]
    channels = estimator.channels
    torch.testing.assert_close(channels.mean, whole.mean(dims))
    torch.testing.assert_close(
        channels.std, whole.std(dims, correction=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        channels.rms, whole.square().mean(dims).sqrt())
    assert channels.low == whole.min() and channels.high == whole.max()
    assert channels.updates == 5
    torch.testing.assert_close(
        estimator.channel_unit(whole), over(channels.std, whole))


def test_the_range_is_what_was_seen():
    """0 is none of it unless it was there; and it never shrinks."""
    estimator = make(ConvEstimator)
    for low, high, expected in ((2., 3., (2, 3)), (1., 2., (1, 3)),
                                (4., 5., (1, 5))):
        x = torch.linspace(low, high, 6 * 4).view(1, 6, 2, 2)
        estimator.follow([x])
        assert (estimator.channels.low, estimator.channels.high) == expected
    # one batch that overflowed must not stay
    estimator.follow([torch.full((1, 6, 2, 2), math.inf)])
    assert (estimator.channels.low, estimator.channels.high) == (1, 5)


@pytest.mark.parametrize('value', [0.1, 3.7, 33.3, 1000.1])
def test_a_channel_that_never_changes(value):
    """What rounding makes of its variance is no deviation."""
    estimator = make(ConvEstimator)
    for _ in range(3):
        feature = make_feature((2, 6, 4, 5))
        feature[:, 4] = value
        estimator.follow([feature])
    assert estimator.channels.std[4] == 0
    assert (estimator.channels.std > 0).sum() == 5
    assert (estimator(feature)[:, 4] == 0).all()
    # in the other modes its RMS is its unit
    torch.testing.assert_close(estimator.channels.rms[4],
                               torch.tensor(value))


def test_statistics_of_the_sensitivity_by_hand():
    known = make(TokenEstimator).known
    assert known.grid == (256, ) and len(known.others) == 16

    def whole(*values):  # one number in all tokens of an image
        return torch.tensor(values)[:, None, None].expand(-1, 5, 1)

    order = torch.arange(2)
    known.follow([(whole(1., 3.), whole(0., 3.), order)], 0.25)
    assert known.gain == 2 and known.share == 0.25
    torch.testing.assert_close(known.map, torch.full((256, ), 2.))
    assert float(known.excess) == pytest.approx((math.e + 1) / 2)
    # another batch counts as much, whatever its number of images
    known.follow([(whole(8.), whole(8.), order[:1])], 0.75)
    assert known.gain == 5 and known.share == 0.5
    torch.testing.assert_close(known.map, torch.full((256, ), 5.))
    assert float(known.excess) == pytest.approx(((math.e + 1) / 2 + 1) / 2)
    # a batch without any region leaves all as it is
    before = {k: v.clone() for k, v in known.state_dict().items()}
    known.follow([], 0.0)
    assert known.updates == 3
    for key, value in known.state_dict().items():
        assert key == 'updates' or torch.equal(value, before[key]), key
    known.updates.fill_(10000)  # a window of 100 batches
    known.follow([(whole(0.), whole(0.), order[:1])], 0.5)
    assert float(known.gain) == pytest.approx(0.99 * 5)


def test_images_count_alike_in_the_sensitivity():
    """Of two sizes: neither their tokens nor their groups count."""
    known = make(ConvEstimator).known
    parts = [(torch.full((2, 1, 4, 4), 1.), torch.zeros(2, 1, 4, 4),
              torch.tensor([0, 2])),
             (torch.full((1, 1, 2, 4), 7.), torch.full((1, 1, 2, 4), 7.),
              torch.tensor([1]))]
    known.follow(parts, 1.0)
    assert float(known.gain) == pytest.approx(3)
    torch.testing.assert_close(known.map, torch.full((32, 32), 3.))
    assert float(known.excess) == pytest.approx((2 * math.e + 1) / 3)


def test_the_static_map_is_the_mean_map():
    known = make(ConvEstimator).known
    maps = [noise((2, 1, 32, 32), i) for i in range(3)]
    for wanted in maps:
        known.follow([(wanted, wanted, torch.arange(2))], 1.0)
    mean = torch.cat(maps).mean(0)
    torch.testing.assert_close(
        known.static(torch.zeros(4, 6, 32, 32)),
        mean.expand(4, 1, 32, 32), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        known.static(torch.zeros(1, 6, 16, 16))[0],
        nn.functional.avg_pool2d(mean, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(known.gain, mean.mean(), rtol=1e-4, atol=1e-5)


def test_maps_of_other_pictures():
    """The newest, in the order of the images however a level sorts them by
    size: a number means one picture in all levels."""
    fine, coarse = (make(ConvEstimator).known for _ in range(2))

    def predicted(*values):
        return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 3)

    def images(*rows):
        return torch.tensor(rows)

    for first in range(0, 21, 3):
        a, b, c = (float(first + i) for i in range(3))
        fine.follow([(predicted(a, c), predicted(a, c), images(0, 2)),
                     (predicted(b), predicted(b), images(1))], 1.0)
        coarse.follow([(predicted(a, b, c), predicted(a, b, c),
                        images(0, 1, 2))], 1.0)
    assert torch.equal(fine.others, coarse.others)
    numbers = fine.others[:, 0, 0].tolist()
    assert numbers == [18, 19, 20, 15, 16, 17, 12, 13, 14, 9, 10, 11, 6, 7, 8,
                       3]
    keys = torch.tensor([0, 5, 16, 33])
    for like in (torch.zeros(4, 6, 8, 8), torch.zeros(4, 6, 3, 2)):
        out = fine.other(keys, like)
        assert out.shape == (4, 1, *like.shape[2:])
        assert out[:, 0, 0, 0].tolist() == [18, 17, 18, 19]
        assert (out == out[:, :, :1, :1]).all()


# ---------------------------------------------------------------- closed form
@pytest.mark.parametrize('cls, shape, expected', CASES)
@pytest.mark.parametrize('tolerance, share', [(0.02, 1.0), (0.5, 0.25)])
def test_the_jnd_costs_the_tolerance(cls, shape, expected, tolerance, share):
    """Half the sum of w s^2 over the image, for exact w; a level that has a
    quarter of the tokens has a quarter of it."""
    estimator = make(cls, tolerance=tolerance).eval()
    feature, log_w = make_feature(shape), noise(expected, 1) - 5
    estimator.known.share.fill_(share)
    estimator.log_sensitivity = lambda x: log_w
    bound = estimator(feature)
    # uniform noise in (-b, b) has the deviation b / sqrt(3)
    s = (bound / over(STD, bound)).narrow(channel_dim(bound), 0, 1) / 3**0.5
    cost = 0.5 * (log_w.exp() * s.square()).flatten(1).sum(1)
    torch.testing.assert_close(cost, torch.full((3, ), tolerance * share))
    # every token at the same cost
    each = (log_w.exp() * s.square()).flatten(1)
    torch.testing.assert_close(each, each[:, :1].expand_as(each))
    # on average w is so many times what is predicted: so much less is left
    estimator.known.excess.fill_(4)
    torch.testing.assert_close(estimator(feature), bound / 2)


def test_no_token_gets_all_the_noise():
    """Within ``log_range`` of the mean of its image, in nats."""
    estimator = make(ConvEstimator, log_range=1.0).eval()
    feature = make_feature((1, 6, 4, 5))
    log_w = torch.zeros(1, 1, 4, 5)
    log_w[..., 0, 0] = -40  # of no use to the task
    log_w[..., 0, 1] = 40
    log_s = (estimator.envelope_of(log_w, feature) / over(STD, feature))[
        0, 0].log()
    middle = log_s[1, 1]
    assert float(log_s[0, 0] - middle) == pytest.approx(1, abs=1e-4)
    assert float(log_s[0, 1] - middle) == pytest.approx(-1, abs=1e-4)
    s = estimator.bounded(log_w)
    assert float(s.max()) == pytest.approx(1)
    assert float(s.min()) == pytest.approx(-1)


def test_no_image_at_all():
    estimator = make(ConvEstimator).eval()
    assert estimator(torch.zeros(0, 6, 4, 5)).shape == (0, 6, 4, 5)


@pytest.mark.parametrize('tolerance', [0, -0.1, math.inf])
def test_errors(tolerance):
    with pytest.raises(ValueError, match='tolerance must be a number of nats'):
        ConvEstimator(6, tolerance=tolerance)


@pytest.mark.parametrize('mode', ['signed', 'envelope'])
def test_the_other_modes_know_no_sensitivity(mode):
    """Their checkpoints hold what they had."""
    keys = make(ConvEstimator, mode=mode).state_dict()
    assert not any(k.startswith(('known', 'level')) for k in keys)
    assert {k for k in make(ConvEstimator).state_dict()} >= {
        'known.gain', 'known.map', 'known.others', 'level.weight'}
