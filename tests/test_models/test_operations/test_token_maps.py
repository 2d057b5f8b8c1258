"""Noise that differs in where it is put, and the steps of such maps."""
import math

import pytest
import torch

from mmfeatjnd.functional import (
    Level,
    gaussian_noise,
    image_keys,
    log_sensitivity,
)
from mmfeatjnd.models import (
    CheckpointError,
    FeatJNDNeck,
    Perturbation,
    Quantization,
    build_distortion,
)
from mmfeatjnd.registry import STEP_POLICIES
from mmfeatjnd.utils import ConfigError

STD = torch.tensor([0.5, 1.0, 2.0, 4.0])


def make_neck(levels=2, mode='sensitivity', **kwargs):
    torch.manual_seed(0)
    neck = FeatJNDNeck(
        dict(type='mmfeatjnd.ConvEstimator', hidden_channels=8, mode=mode),
        in_channels=[4] * levels,
        **kwargs).eval()
    for estimator in neck.estimators:
        estimator.channels.mean_square.copy_(STD**2)
        estimator.initial.fill_(1)
        if mode == 'sensitivity':
            estimator.known.map.normal_()
            estimator.known.others.normal_()
    return neck.requires_grad_(False)


def make_features(*ids, sizes=((8, 12), (4, 6))):
    return [
        gaussian_noise(image_keys(ids, i), (4, *size)) * STD[:, None, None]
        for i, size in enumerate(sizes)
    ]


def changes(operation, neck, features, **kwargs):
    with torch.no_grad(), neck.run(operation, **kwargs) as run:
        out = neck.apply_levels(features)
    return [a - b for a, b in zip(out, features)], run


def joint_rms(deltas):
    """RMS over all levels in units of the channels' deviations, (B,)."""
    unit = STD[:, None, None]
    total = sum((d / unit).square().flatten(1).sum(1) for d in deltas)
    return (total / sum(d[0].numel() for d in deltas)).sqrt()


@pytest.mark.parametrize('name', [
    'gaussian', 'featjnd', 'static', 'other-image', 'level-gain',
    'permuted', 'feature-energy', 'fisher', 'outside-boxes',
    'gradient-sensitivity'
])
def test_all_levels_together_have_the_strength(name):
    neck, features = make_neck(), make_features('a', 'b')
    deltas, run = changes(
        Perturbation(name, 1.5, 'channel'),
        neck,
        features,
        images=['a', 'b'],
        sensitivity={i: [x.square()] for i, x in enumerate(features)},
        detections=[torch.tensor([[0.0, 0.0, 0.5, 1.0]])] * 2)
    torch.testing.assert_close(joint_rms(deltas), torch.full((2, ), 1.5))
    summary = Perturbation(name, 1.5, 'channel').summary(run.measured)
    assert summary['nrmse'] == pytest.approx(1.5, rel=1e-5)


def test_noise_is_white_over_the_channels():
    """In units of their deviations; only where differs."""
    neck = make_neck(1)
    x = make_features('a', sizes=((60, 80), ))
    (delta, ), _ = changes(
        Perturbation('static', 1.0, 'channel'), neck, x, images=['a'])
    relative = delta / STD[:, None, None]
    by_channel = relative.square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(by_channel, torch.ones(4), rtol=0.05, atol=0)
    # where: as the map says, w^(-1/2)
    log_w = neck.estimators[0].known.static(x[0])
    energy = relative.square().mean(1, keepdim=True)
    low, high = (energy[m].mean() for m in (log_w > 0.5, log_w < -0.5))
    expected = [(-log_w[m]).exp().mean() for m in (log_w > 0.5, log_w < -0.5)]
    assert float(high / low) == pytest.approx(
        float(expected[1] / expected[0]), rel=0.15)


def test_one_picture_for_all_levels():
    """Another image's map is that of one picture, whatever the level."""
    neck = make_neck()
    for estimator in neck.estimators:
        for i, grid in enumerate(estimator.known.others):
            grid.fill_(i)
    keys = image_keys(range(40))
    first, second = (
        build_distortion('other-image').log_sensitivity(
            Level(x, keys, i, estimator=neck.estimators[i]))[:, 0, 0, 0]
        for i, x in enumerate(make_features(*range(40))))
    assert torch.equal(first, second) and len(first.unique()) > 8


def test_fisher_is_the_token_sensitivity():
    neck, (x, ) = make_neck(1), make_features('a', sizes=((3, 4), ))
    information = torch.rand(1, 4, 3, 4)
    level = Level(x, image_keys(['a']), sensitivity=information,
                  estimator=neck.estimators[0])
    found = build_distortion('fisher').log_sensitivity(level)
    torch.testing.assert_close(found, log_sensitivity(information, STD))


def test_boxes_stay_clean():
    neck, features = make_neck(), make_features('a', 'b')
    boxes = [torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.zeros(0, 4)]
    deltas, _ = changes(
        Perturbation('outside-boxes', 1.0, 'channel'), neck, features,
        images=['a', 'b'], detections=boxes)
    for delta in deltas:
        h, w = delta.shape[2:]
        assert not delta[0, :, :h // 2, :w // 2].any()
        assert delta[0, :, h // 2:].all() and delta[1].all()


@pytest.mark.parametrize('name', [
    'gaussian', 'featjnd', 'permuted', 'static', 'other-image',
    'feature-energy'
])
def test_padding_is_neither_touched_nor_counted(name):
    """So an image alone gets what it gets beside others."""
    neck, features = make_neck(), make_features('a', 'b')
    operation = Perturbation(name, 1.0, 'channel')
    deltas, _ = changes(operation, neck, features, images=['a', 'b'],
                        content=[(64, 96, 64, 96), (32, 96, 64, 96)])
    cut = [d[1:, :, :d.size(2) // 2] for d in deltas]
    assert not any(d[1, :, d.size(2) // 2:].any() for d in deltas)
    torch.testing.assert_close(joint_rms(cut), torch.ones(1))
    alone, _ = changes(
        operation, neck, [x[1:, :, :x.size(2) // 2] for x in features],
        images=['b'])
    for a, b in zip(alone, cut):
        torch.testing.assert_close(a, b)


def test_several_views_of_an_image():
    """Windows, one after the other: each has the strength, and other noise."""
    neck, features = make_neck(), make_features('a')
    operation = Perturbation('featjnd', 1.5, 'channel')
    with torch.no_grad(), neck.run(operation, images=['a']) as run:
        first, second = (
            [a - b for a, b in zip(neck.apply_levels(x), x)]
            for x in (features, [2 * x for x in features]))
    for deltas in (first, second):
        torch.testing.assert_close(joint_rms(deltas), torch.full((1, ), 1.5))
    assert operation.summary(run.measured)['nrmse'] == pytest.approx(
        1.5, rel=1e-5)
    for a, b in zip(first, second):
        assert torch.corrcoef(
            torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.5


def test_half_precision():
    neck = make_neck()
    features = [x.half() for x in make_features('a', 'b')]
    operation = Perturbation('featjnd', 1.0, 'channel')
    deltas, run = changes(operation, neck, features, images=['a', 'b'])
    assert all(d.dtype == torch.float16 for d in deltas)
    torch.testing.assert_close(
        joint_rms([d.float() for d in deltas]), torch.ones(2), rtol=1e-2,
        atol=0)
    # what the host gets is measured
    assert operation.summary(run.measured)['nrmse'] == pytest.approx(
        float(joint_rms([d.float() for d in deltas]).mean()), rel=1e-3)


@pytest.mark.parametrize('definition', ['channel', 'rms'])
def test_valid_features_stay_in_the_range(definition):
    neck = make_neck()
    for estimator in neck.estimators:
        estimator.channels.low.zero_()
        estimator.channels.high.fill_(8)
    features = [x.relu().clamp(max=8) for x in make_features('a', 'b')]
    operation = Perturbation('featjnd', 0.4, definition, valid=True)
    deltas, run = changes(operation, neck, features, images=['a', 'b'])
    for x, delta in zip(features, deltas):
        assert (x + delta).min() >= 0 and (x + delta).max() <= 8
    assert operation.summary(run.measured)['nrmse'] == pytest.approx(
        0.4, rel=1e-3)
    if definition == 'channel':
        torch.testing.assert_close(
            joint_rms(deltas), torch.full((2, ), 0.4), rtol=1e-3, atol=0)


def test_a_strength_out_of_reach_is_measured_as_it_is():
    neck = make_neck(1)
    neck.estimators[0].channels.high.fill_(1)
    x = [make_features('a')[0].clamp(0, 1)]
    operation = Perturbation('gaussian', 50.0, 'channel', valid=True)
    deltas, run = changes(operation, neck, x, images=['a'])
    assert operation.summary(run.measured)['nrmse'] == pytest.approx(
        float(joint_rms(deltas)), rel=1e-5)
    assert 0 < float(joint_rms(deltas)) < 2


def test_levels_one_after_the_other_are_refused(build, batch):
    """A list of modules emits its levels one by one."""
    model = build('detector', split='c2', in_channels=[16] * 4,
                  estimator=dict(mode='sensitivity'))
    neck = model.featjnd_neck
    with torch.no_grad(), pytest.raises(ConfigError, match='one after'), \
            neck.run(Perturbation('gaussian', 1.0, 'channel'), [0, 1]):
        model.extract_feat(batch('detector')[0])
    assert neck.change is None


def test_tokens_and_vectors():
    for shape in ((2, 9, 4), (2, 4)):
        torch.manual_seed(0)
        neck = FeatJNDNeck(
            dict(type='mmfeatjnd.TokenEstimator', hidden_channels=8),
            in_channels=[4]).eval()
        neck.estimators[0].channels.mean_square.copy_(STD**2)
        x = torch.randn(shape)
        (delta, ), _ = changes(
            Perturbation('featjnd', 2.0, 'channel'), neck, [x], images=[0, 1])
        rms = (delta / STD).square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(rms, torch.full((2, ), 2.0))


def test_a_map_needs_its_estimator():
    for mode in ('signed', 'envelope'):
        neck = make_neck(1, mode)
        with pytest.raises(CheckpointError, match=f"mode='{mode}'"):
            Perturbation('static', 1.0, 'channel').check(neck)
        # white noise needs the channels' deviations only
        Perturbation('gaussian', 1.0, 'channel').check(neck)


# ----------------------------------------------------------------------- steps
@pytest.mark.parametrize('name', [
    'static', 'other-image', 'level-gain', 'feature-energy', 'fisher',
    'featjnd', 'white'
])
def test_steps_of_a_map(name):
    """Their error has the variance that the map gives to each token."""
    neck, (x, ) = make_neck(1), make_features('a', sizes=((8, 12), ))
    estimator = neck.estimators[0]
    policy = STEP_POLICIES.build(
        dict(type='token-map', map=name, granularity='element', power=1))
    level = Level(x, image_keys(['a']), sensitivity=x.square(),
                  estimator=estimator)
    step = policy(level)(torch.ones(1)).steps.size(x)
    log_w = torch.zeros(1, 1, 8, 12) if name == 'white' else \
        build_distortion(name).log_sensitivity(level)
    log_s = estimator.bounded(
        0.5 * (math.log(2 * estimator.tolerance / 96) - log_w))
    expected = math.sqrt(12) * STD[:, None, None] * log_s.exp()
    # on a grid of half octaves
    assert float((step / expected).log2().abs().max()) < 0.26


def test_steps_of_the_learned_map_cost_its_tolerance():
    """Half the sum of w s^2 is the tolerance, for exact w."""
    neck, (x, ) = make_neck(1), make_features('a', sizes=((8, 12), ))
    estimator = neck.estimators[0]
    log_w = torch.randn(1, 1, 8, 12)
    bound = estimator.envelope_of(log_w, x)
    s = bound / STD[:, None, None] / math.sqrt(3)
    torch.testing.assert_close(s[:, :1].expand_as(s), s)
    cost = 0.5 * (log_w.exp() * s[:, :1]**2).sum()
    assert float(cost) == pytest.approx(0.02, rel=1e-5)


def test_which_maps_give_steps():
    with pytest.raises(ValueError, match="'gaussian' is no token map"):
        Quantization(dict(type='token-map', map='gaussian'))
    with pytest.raises(ValueError, match='gives no steps'):
        Quantization(dict(type='token-map', map='outside-boxes'))
    with pytest.raises(CheckpointError, match="mode='envelope'"):
        Quantization(dict(type='token-map', map='static')).check(
            make_neck(1, 'envelope'))


@pytest.mark.parametrize('valid', (False, True))
def test_volume_of_noise(valid):
    neck, features = make_neck(), make_features('a')

    def summary(name):
        operation = Perturbation(name, 1.5, 'channel', valid=valid)
        run = changes(operation, neck, features, images=['a'])[1]
        return operation.summary(run.measured)

    white, uneven = summary('gaussian'), summary('static')
    if valid:  # what is clamped has no known variance
        assert 'volume_bits' not in white
        return
    assert white['volume_bits'] == pytest.approx(
        0.5 * math.log2(1 + 1.5**2), rel=0.05)
    # the mean of a concave function
    assert uneven['volume_bits'] < white['volume_bits'] - 0.02
    # by hand: s_t ~ w_t^(-1/2) over both levels, of the strength in the mean
    tolerated = torch.cat([
        (-e.known.static(x)).exp().flatten()
        for e, x in zip(neck.estimators, features)
    ])
    expected = (1 + tolerated * 1.5**2 / tolerated.mean()).log2().mean() / 2
    assert uneven['volume_bits'] == pytest.approx(float(expected), rel=0.05)


def test_a_change_that_is_no_noise_has_no_volume():
    neck, features = make_neck(), make_features('a')
    operation = Perturbation('shrinkage', 1.0, 'channel')
    run = changes(operation, neck, features, images=['a'])[1]
    assert 'volume_bits' not in operation.summary(run.measured)
