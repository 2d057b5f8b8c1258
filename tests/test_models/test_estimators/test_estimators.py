import math
import random

import pytest
import torch

from mmfeatjnd.functional import (
    channel_dim,
    gaussian_noise,
    image_keys,
    uniform_noise,
)
from mmfeatjnd.models import ConvEstimator, TokenEstimator
from mmfeatjnd.models.estimators.base_estimator import MODES

CASES = [
    (ConvEstimator, (2, 6, 4, 5)),
    (TokenEstimator, (2, 7, 6)),
    (TokenEstimator, (2, 6)),
]


def make(cls, mode='signed', **kwargs):
    torch.manual_seed(0)
    return cls(6, hidden_channels=8, mode=mode, **kwargs)


def make_feature(shape, seed=0):
    """Channels of very different strength."""
    x = gaussian_noise(image_keys(range(shape[0]), seed), shape[1:])
    view = [1] * len(shape)
    view[channel_dim(x)] = -1
    return x * (10.**torch.arange(-2., 4.)).view(view)


@pytest.mark.parametrize('cls, shape', CASES)
@pytest.mark.parametrize('mode', MODES)
def test_shape_and_gradients(cls, shape, mode):
    estimator, feature = make(cls, mode), make_feature(shape)
    estimator.follow([feature])
    out = estimator(feature.bfloat16().requires_grad_(False))
    assert out.shape == shape and out.dtype == torch.float32
    delta = estimator.distortion(out, image_keys(range(2)))
    delta.square().sum().backward()
    # in sensitivity mode a map has no mean, and a vector no map
    unused = ()
    if mode == 'sensitivity':
        unused = ('expand.bias', 'expand.weight')[:1 + (len(shape) == 2)]
    for name, parameter in estimator.named_parameters():
        assert name in unused or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('cls, shape', CASES)
def test_envelope_is_positive_and_bounded(cls, shape):
    estimator, feature = make(cls, 'envelope', log_range=2.), make_feature(
        shape)
    estimator.follow([feature])
    envelope = estimator(feature)
    ratio = envelope / estimator.channel_unit(feature)
    assert ratio.min() >= math.exp(-2.) * 0.999
    assert ratio.max() <= math.exp(2.) * 1.001
    keys = image_keys(['a', 'b'])
    delta = estimator.distortion(envelope, keys, 3)
    assert (delta.abs() < envelope).all() and (delta < 0).any()
    assert torch.equal(delta, envelope * uniform_noise(keys, shape[1:], 3))


@pytest.mark.parametrize('cls, shape', CASES)
def test_signed_has_both_signs_and_is_its_own_distortion(cls, shape):
    estimator = make(cls)
    out = estimator(make_feature(shape))
    assert (out > 0).any() and (out < 0).any()
    assert estimator.distortion(out) is out


@pytest.mark.parametrize('cls, shape', CASES)
def test_statistics_follow_the_training_only(cls, shape):
    estimator = make(cls)
    first, second = make_feature(shape), 3 * make_feature(shape, 1)
    dims = [d for d in range(len(shape)) if d != channel_dim(first)]
    estimator(first)  # to predict is not to follow
    assert (estimator.channels.mean_square == 1).all()
    assert not estimator.channels.updates
    estimator.follow([first])
    torch.testing.assert_close(estimator.channels.mean_square,
                               first.square().mean(dims))
    estimator.follow([second])  # the plain average at first
    torch.testing.assert_close(
        estimator.channels.mean_square,
        (first.square() + second.square()).mean(dims) / 2)
    estimator.channels.updates.fill_(10000)  # then a window of 100 batches
    before = estimator.channels.mean_square.clone()
    estimator.follow([first])
    torch.testing.assert_close(
        estimator.channels.mean_square,
        before * 0.99 + first.square().mean(dims) * 0.01)
    estimator.eval()
    state = {k: v.clone() for k, v in estimator.state_dict().items()}
    estimator.follow([second])
    a, b = estimator(second), estimator(second)
    assert torch.equal(a, b)
    for key, value in estimator.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_images_of_several_sizes_are_one_batch():
    """All that is there counts alike, and the batch counts once."""
    one, parts = make(ConvEstimator), make(ConvEstimator)
    feature = make_feature((3, 6, 4, 5))
    one.follow([feature])
    parts.follow([feature[:2], feature[2:, :, :, :2], feature[2:, :, :, 2:]])
    assert parts.channels.updates == 1
    torch.testing.assert_close(parts.channels.mean_square,
                               one.channels.mean_square)


@pytest.mark.parametrize('cls, shape', CASES)
@pytest.mark.parametrize('mode', MODES)
def test_the_map_scales_with_the_channel(cls, shape, mode):
    """Working in units of the channel's RMS: units of the feature cancel."""
    small, large = make(cls, mode), make(cls, mode)
    feature = make_feature(shape)
    small.follow([feature])
    large.follow([1000 * feature])
    a, b = small(feature), large(1000 * feature)
    torch.testing.assert_close(1000 * a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('cls, shape', CASES)
@pytest.mark.parametrize('mode', MODES)
def test_a_dead_channel_gets_no_distortion(cls, shape, mode):
    estimator, feature = make(cls, mode), make_feature(shape)
    feature.select(channel_dim(feature), 4).zero_()
    estimator.follow([feature])
    dead = estimator(feature).select(channel_dim(feature), 4)
    assert (dead == 0).all()
    estimator.eval()
    expected = estimator(feature)
    # that it fires later must not change what the others get
    feature.select(channel_dim(feature), 4).fill_(0.1)
    assert torch.equal(estimator(feature), expected)


@pytest.mark.parametrize('broken', [math.inf, math.nan])
def test_a_broken_batch_does_not_stay_in_the_statistics(broken):
    estimator, feature = make(ConvEstimator), make_feature((2, 6, 4, 5))
    estimator.follow([feature])
    before = estimator.channels.mean_square.clone()
    feature[0, 2, 0, 0] = broken
    estimator.follow([feature])
    assert torch.isfinite(estimator.channels.mean_square).all()
    assert estimator.channels.mean_square[2] == before[2]


def test_no_token_at_all():
    """A split inside the head of a detector that proposes nothing."""
    estimator = make(TokenEstimator)
    for parts in ([torch.zeros(0, 6)], []):
        estimator.follow(parts)
    assert estimator(torch.zeros(0, 6)).shape == (0, 6)
    assert (estimator.channels.mean_square == 1).all()


@pytest.mark.parametrize('cls, shape', CASES)
def test_an_image_does_not_depend_on_the_batch(cls, shape):
    estimator = make(cls).eval()
    feature = make_feature((5, *shape[1:]))
    torch.testing.assert_close(
        estimator(feature)[3:4], estimator(feature[3:4]))


def test_any_image_size():
    estimator = make(ConvEstimator).eval()
    for size in ((1, 1), (1, 9), (17, 3)):
        assert estimator(torch.rand(1, 6, *size)).shape == (1, 6, *size)


def test_errors():
    with pytest.raises(ValueError, match="mode must be one of.*'both'"):
        make(ConvEstimator, 'both')
    with pytest.raises(ValueError, match='6 channels, but got 7.*in_channels'):
        make(ConvEstimator)(torch.rand(1, 7, 2, 2))
    with pytest.raises(ValueError, match='6 channels, but got 5'):
        make(TokenEstimator)(torch.rand(1, 6, 5))
    with pytest.raises(ValueError, match='mmfeatjnd.TokenEstimator'):
        make(ConvEstimator)(torch.rand(1, 7, 6))
    with pytest.raises(ValueError, match='mmfeatjnd.ConvEstimator'):
        make(TokenEstimator)(torch.rand(1, 6, 2, 2))
    with pytest.raises(TypeError, match='ConvEstimator.*int64'):
        make(ConvEstimator)(torch.zeros(1, 6, 2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match='6 channels, but got 7.*in_channels'):
        make(ConvEstimator).follow([torch.rand(1, 7, 2, 2)])


# ------------------------------------------------------------------- training
def test_the_fingerprint():
    """That of the parameters' bits: in any order, and on any device."""
    estimator = make(ConvEstimator)
    bits = [
        int.from_bytes(bytes(row.numpy().tobytes()), 'little', signed=True)
        for p in estimator.parameters() for row in p.detach().flatten()]
    random.Random(0).shuffle(bits)
    assert estimator.fingerprint() == sum(bits)
    assert estimator.fingerprint() == make(ConvEstimator).fingerprint()
    state = {k: v.clone() for k, v in estimator.state_dict().items()}
    estimator.load_state_dict(state)
    assert estimator.fingerprint() == sum(bits)
    # any change of any parameter, as small as it may be
    for p in estimator.parameters():
        with torch.no_grad():
            last = p.view(-1)[-1]
            old = last.clone()
            last.copy_(torch.nextafter(old, old + 1))
            assert estimator.fingerprint() != sum(bits)
            last.copy_(old)
    assert estimator.fingerprint() == sum(bits)
    # buffers are none of it
    estimator.follow([make_feature((2, 6, 4, 5))])
    assert estimator.fingerprint() == sum(bits)


@pytest.mark.parametrize('cls, shape', CASES)
def test_trained_means_that_parameters_changed(cls, shape):
    """Not that it ran: a learning rate of 0 trains nothing."""
    estimator, feature = make(cls), make_feature(shape)
    assert not estimator.trained
    estimator.follow([feature])
    assert estimator.initial == estimator.fingerprint()
    assert not estimator.trained and estimator.channels.updates == 1
    optimizer = torch.optim.SGD(estimator.parameters(), lr=0.)
    for lr in (0., 0.1):
        optimizer.param_groups[0]['lr'] = lr
        estimator.follow([feature])
        optimizer.zero_grad()
        estimator(feature / feature.abs().amax()).square().sum().backward()
        optimizer.step()
        assert estimator.trained == (lr > 0)
    # whatever it saw afterwards
    estimator.follow([feature])
    assert estimator.trained


def test_the_start_is_kept_over_resuming():
    estimator, feature = make(ConvEstimator), make_feature((2, 6, 4, 5))
    estimator.follow([feature])
    begun = estimator.initial.clone()
    with torch.no_grad():
        estimator.expand.bias += 1
    resumed = make(ConvEstimator)
    resumed.load_state_dict(estimator.state_dict())
    assert resumed.trained
    resumed.follow([feature])
    assert resumed.initial == begun and resumed.trained
    # a checkpoint of the first step that trains nothing further
    idle = make(ConvEstimator)
    idle.load_state_dict(dict(make(ConvEstimator).state_dict(),
                              initial=begun))
    assert not idle.trained
    # of the fingerprint's many bits none gets lost in a file
    assert resumed.state_dict()['initial'].dtype == torch.int64
