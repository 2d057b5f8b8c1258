"""Training on the Fisher information: on a host where it is known, and on the
hosts of the three libraries.

The known host is linear. Its features f are maps of 6 channels, of which its
four logits read channels 1 and 2, g (a, -a, b, -b) with a = sum_t h_t f_1t and
b = sum_t h_t f_2t. The weight h_t of a token is exp(f_0t) of the feature
itself. With g near 0 the classes are equally likely, so the Fisher information
of both is g^2 / 2 times h_t^2, and log w_t = 2 f_0t + log(g^2 / 2 (sigma_1^2 +
sigma_2^2)).
"""
import copy
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from torch import nn

from mmfeatjnd.functional import gaussian_noise, image_keys
from mmfeatjnd.models import Distillation, FeatJNDNeck
from mmfeatjnd.models.operations.distillation import Regression
from mmfeatjnd.models.run import Run
from mmfeatjnd.registry import MODELS

CHANNELS, GAIN = 6, 1e-4
STD = torch.tensor([0.5, 2., 2., 3., 1., 1.])
MEAN = torch.tensor([0., 3., -1., 0., 5., 0.])
KINDS = ['classifier', 'segmentor', 'detector']
SENSITIVITY = dict(estimator=dict(mode='sensitivity'))


class Maps(nn.Module):
    """The input is the feature."""

    def forward(self, x):
        return (x, )


class Weighted(nn.Module):
    """The sum of all tokens, of which some count more."""

    def forward(self, features):
        x, = features
        return ((x * x[:, :1].detach().exp()).sum((2, 3)), )


@pytest.fixture
def linear_host():
    """Build FeatJND on the host above."""
    ROOT.register_module(name='TestMaps', module=Maps)
    ROOT.register_module(name='TestWeighted', module=Weighted)

    def build(draws=2, **estimator):
        torch.manual_seed(0)
        cfg = dict(
            type='mmfeatjnd.FeatJND',
            host='mmpretrain.ImageClassifier',
            backbone=dict(type='mmengine.TestMaps'),
            neck=dict(
                type='mmfeatjnd.FeatJNDNeck',
                neck=dict(type='mmengine.TestWeighted'),
                in_channels=CHANNELS,
                estimator=dict(
                    type='mmfeatjnd.ConvEstimator',
                    hidden_channels=16,
                    num_convs=1,
                    **estimator)),
            head=dict(
                type='LinearClsHead', num_classes=4, in_channels=CHANNELS),
            training=dict(draws=draws))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(ConfigDict(cfg)).train()
        a, b = GAIN * torch.eye(CHANNELS)[1:3]
        model.head.fc.weight.data = torch.stack([a, -a, b, -b])
        model.head.fc.bias.data.zero_()
        return model

    yield build
    del ROOT.module_dict['TestMaps'], ROOT.module_dict['TestWeighted']


def features(step, number=16):
    """A batch of another one of infinitely many, 0 for the test."""
    x = gaussian_noise(image_keys(range(number), seed=step), (CHANNELS, 5, 6))
    return x * STD[:, None, None] + MEAN[:, None, None]


def known_log_w(x):
    return 2 * x[:, :1] + math.log(
        GAIN**2 / 2 * float(STD[1:3].square().sum()))


def total(model, losses):
    return model.parse_losses(losses)[0]


@pytest.fixture
def at_step():
    """What a Runner tells everybody: the number of the step."""
    hub = MessageHub.get_instance('training')
    yield lambda step: hub.update_info('iter', step)
    MessageHub._instance_dict.clear()


# ------------------------------------------------------------- the known host
def test_what_the_estimator_is_taught(linear_host):
    """With many draws it is log w, and with few its tokens keep their
    ratios: the draw of an image is the same for all of them."""
    model, x = linear_host(draws=400), features(0, 4)
    estimator, = model.neck.estimators
    _, run, _ = model.featjnd_training.step(model, x, None, 0)
    (level, wanted, predicted, images), = run.kept
    assert level == 0 and images.tolist() == [0, 1, 2, 3]
    # the deviations are those of the very batch
    std = x.std((0, 2, 3), correction=0)
    torch.testing.assert_close(estimator.channels.std, std)
    exact = known_log_w(x) + (
        std[1:3].square().sum() / STD[1:3].square().sum()).log()
    torch.testing.assert_close(wanted, exact, rtol=0, atol=0.15)
    torch.testing.assert_close(  # the gain was 0 then
        predicted, estimator.log_sensitivity(x) - estimator.known.gain)
    model = linear_host(draws=1)
    wanted = model.featjnd_training.step(model, x, None, 0)[1].kept[0].wanted
    away = wanted - exact
    torch.testing.assert_close(
        away, away[:, :, :1, :1].expand_as(away), rtol=0, atol=0.02)
    assert away[:, 0, 0, 0].std() > 0.1


def test_every_step_draws_anew(linear_host):
    model, x = linear_host(), features(0)

    def wanted(seed):
        return model.featjnd_training.step(model, x, None, seed)[1].kept[
            0].wanted

    first = wanted(1)
    assert torch.equal(wanted(1), first) and not torch.equal(wanted(2), first)


def test_losses_by_hand(linear_host):
    model, x = linear_host(), features(0)
    losses, run, noticed = model.featjnd_training.step(model, x, None, 0)
    kept, = run.kept
    error = (kept.predicted - kept.wanted).square().mean()
    torch.testing.assert_close(losses, dict(
        loss_jnd_regression=error,
        jnd_sensitivity=kept.wanted.mean(),
        jnd_error=error.sqrt()))
    assert losses['loss_jnd_regression'].requires_grad
    assert not losses['jnd_error'].requires_grad
    torch.testing.assert_close(noticed, kept.wanted.exp().mean())
    assert set(model.loss(x)) == {
        'loss_jnd_regression', 'jnd_sensitivity', 'jnd_error'}


def test_levels_count_alike():
    """However many tokens, and sizes of images, they have."""
    training = Distillation()
    neck = FeatJNDNeck(
        dict(type='mmfeatjnd.ConvEstimator', hidden_channels=2),
        in_channels=[3, 3])
    run, rows = Run(training, neck), torch.arange(1)
    for level, size, wanted in ((0, 4, 1.), (0, 2, 6.), (1, 1, 3.)):
        x = torch.full((1, 1, size, size), wanted)
        run.kept.append(Regression(level, x, 0 * x, rows))
    losses = training.losses(run)
    # (16 * 1 + 4 * 36) / 20 = 8 and 9; (16 * 1 + 4 * 6) / 20 = 2 and 3
    assert float(losses['loss_jnd_regression']) == pytest.approx(8.5)
    assert float(losses['jnd_sensitivity']) == pytest.approx(2.5)
    assert float(losses['jnd_error']) == pytest.approx(8.5**0.5)


def test_it_learns_the_known_sensitivity(linear_host):
    model = linear_host()
    estimator, = model.neck.estimators
    steps = 400
    optimizer = torch.optim.Adam(estimator.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        loss = total(model, model.loss(features(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    # Two draws: w is the mean of 4 squares of Gaussians, in which the noise
    # of an image enters, and E[log(chi^2_4 / 4)] = 1 - gamma - log(2) =
    # -0.270; so much below log w is all that can be learned, and it is the
    # logarithm of the excess: E[chi^2_4 / 4] = 1.
    bias = 1 - 0.5772 - math.log(2)
    x = features(0, 200)
    with torch.no_grad():
        found = estimator.eval().log_sensitivity(x)
    known = known_log_w(x)
    assert float((found - known).mean()) == pytest.approx(bias, abs=0.08)
    within = [v - v.mean((2, 3), keepdim=True) for v in (found, known)]
    assert float((within[0] - within[1]).square().mean().sqrt()) < 0.2
    assert float(estimator.known.excess.log()) == pytest.approx(
        -bias, abs=0.12)
    # what is counted beside it: the mean map is flat, as all are alike
    assert float(estimator.known.gain) == pytest.approx(
        float(known.mean()) + bias, abs=0.12)
    assert estimator.known.map.std() < 0.2 < 2 * STD[0]
    assert estimator.known.updates == estimator.channels.updates == steps
    torch.testing.assert_close(
        estimator.channels.std, STD, rtol=0.05, atol=0)
    # so the JND of an image costs its tolerance, of the known w
    with torch.no_grad():
        s = estimator(x)[:, 1:2] / (STD[1] * 3**0.5)
    cost = 0.5 * (known.exp() * s.square()).flatten(1).sum(1)
    assert float(cost.mean()) == pytest.approx(0.02, rel=0.15)


def test_a_host_that_reads_nothing(linear_host):
    """The least number, no NaN; and nothing is noticed, which stops the
    training."""
    model, x = linear_host(), features(0)
    model.head.fc.weight.data.zero_()
    losses, run, noticed = model.featjnd_training.step(model, x, None, 0)
    assert all(v.isfinite() for v in losses.values())
    assert run.kept[0].wanted.max() < -87
    assert noticed == 0


# ------------------------------------------------------------------ real hosts
@pytest.mark.parametrize('kind', KINDS)
def test_only_the_estimators_learn(build, batch, kind):
    """And an estimator whose level nothing reads gets a gradient of 0, which
    DDP waits for."""
    model = build(kind, **SENSITIVITY).train()
    inputs, samples = batch(kind)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses = model(inputs, samples, mode='loss')
    assert set(losses) == {
        'loss_jnd_regression', 'jnd_sensitivity', 'jnd_error'}
    total(model, losses).backward()
    for name, p in model.named_parameters():
        own = name.startswith('neck.estimators.')
        assert own == p.requires_grad == (p.grad is not None), name
        if own:
            assert torch.isfinite(p.grad).all()
            # the segmentor's head reads the last level only
            read = kind != 'segmentor' or name.startswith(
                'neck.estimators.3.')
            # a map has no mean, and the last level of the images one token
            if not name.endswith('expand.bias') and '3.expand' not in name:
                assert (p.grad.abs().sum() > 0) == read, name
    torch.optim.SGD(model.neck.estimators.parameters(), 0.1).step()
    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all(k.startswith('neck.estimators.') for k in changed)
    assert model.featjnd_discrepancy is model.featjnd_objective is None


@pytest.mark.parametrize('kind', KINDS)
def test_modes(build, kind):
    model = build(kind, **SENSITIVITY)
    assert not any(m.training for m in model.modules())
    model.train()
    own = {model, *model.neck.estimators.modules()}
    assert {m for m in model.modules() if m.training} == own


def test_no_annotation_is_used(build, batch):
    def losses(change):
        model = build('detector', **SENSITIVITY).train()
        inputs, samples = batch('detector')
        for sample in samples:
            change(sample)
        return model.loss(inputs, samples)

    def remove(sample):
        del sample.gt_instances

    expected = losses(lambda sample: None)
    for key, value in losses(remove).items():
        assert torch.equal(value, expected[key]), key


def test_a_batch_is_counted_once_and_without_padding(build, batch):
    """Whatever sizes its images have."""
    model = build('detector', **SENSITIVITY).train()
    inputs, samples = batch('detector', 3)
    samples[1].set_metainfo(dict(img_shape=(20, 32)))
    content = [(32, 32), (20, 32), (32, 32)]
    strides = [4, 8, 16, 32]
    _, run, _ = model.featjnd_training.step(model, inputs, samples, 0)
    with torch.no_grad():
        maps = model.backbone(inputs)
    number = [
        sum(-(-h // s) * -(-w // s) for h, w in content) for s in strides]
    for level, (estimator, x) in enumerate(zip(model.neck.estimators, maps)):
        assert estimator.channels.updates == estimator.known.updates == 1
        kept = [r for r in run.kept if r.level == level]
        assert sum(r.wanted.numel() for r in kept) == number[level]
        assert float(estimator.known.share) == pytest.approx(
            number[level] / sum(number))
        rows = -(-20 // strides[level])
        values = torch.cat(
            [x[i, :, :rows if i == 1 else None].flatten(1) for i in range(3)],
            1)
        torch.testing.assert_close(estimator.channels.mean, values.mean(1))
        assert estimator.channels.high == values.max()
        # images count alike in the map
        each = {}
        for r in kept:
            for i, value in zip(r.images.tolist(), r.wanted.mean((1, 2, 3))):
                each[i] = value
        torch.testing.assert_close(
            estimator.known.gain, sum(each.values()) / 3)
        # and the newest predictions are kept in their order
        for i in range(3):
            part, row = next(
                (r, r.images.tolist().index(i)) for r in kept
                if i in r.images.tolist())
            torch.testing.assert_close(
                estimator.known.others[i].mean(),
                nn.functional.interpolate(
                    part.predicted[row:row + 1].detach(), (32, 32),
                    mode='bilinear').mean())


def test_nothing_is_counted_in_eval_mode(build, batch):
    model = build('classifier', **SENSITIVITY).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.loss(*batch('classifier'))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize('kind', KINDS)
def test_a_resumed_training_is_that_training(build, batch, at_step, kind):

    def train(model, steps):
        for step in steps:
            at_step(step)
            losses = model.loss(*batch(kind, first=2 * step))
            optimizer = torch.optim.SGD(model.neck.estimators.parameters(),
                                        0.01)
            optimizer.zero_grad()
            total(model, losses).backward()
            optimizer.step()
        return losses

    model = build(kind, **SENSITIVITY).train()
    train(model, (0, 1))
    state = copy.deepcopy(model.state_dict())
    expected = train(model, (2, 3))
    resumed = build(kind, **SENSITIVITY).train()
    resumed.load_state_dict(state)
    for name, value in train(resumed, (2, 3)).items():
        assert torch.equal(value, expected[name]), name
    for key, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_draws_take_no_global_random_state(build, batch):
    model = build('classifier', **SENSITIVITY).train()
    state = torch.get_rng_state()
    model.loss(*batch('classifier'))
    assert torch.equal(torch.get_rng_state(), state)


# --------------------------------------------------------------------- errors
def test_what_does_not_fit_is_refused(build):
    training = dict(type='mmfeatjnd.Distillation')
    for mode in ('signed', 'envelope'):
        with pytest.raises(
                ValueError,
                match="Distillation trains estimators of mode 'sensitivity', "
                f"but this one has mode='{mode}'.*leave out `training`"):
            build('classifier', training=training,
                  estimator=dict(mode=mode))
    for name, modes in (('DrawnNRMSE', "'signed' or 'envelope'"),
                        ('LearnedNRMSE', "'signed' or 'envelope'"),
                        ('QuantizationSurrogate', "'envelope'")):
        with pytest.raises(
                ValueError,
                match=f'{name} trains estimators of mode {modes}, but this '
                "one has mode='sensitivity'"):
            build('classifier', training=dict(type=f'mmfeatjnd.{name}'),
                  **SENSITIVITY)
    with pytest.raises(ValueError, match='draws must be at least 1'):
        build('classifier', training=dict(training, draws=0), **SENSITIVITY)


@pytest.mark.parametrize('field, value', [
    ('discrepancy', dict()),
    ('discrepancy', dict(type='mmfeatjnd.PredictionDivergence')),
    ('objective', dict()),
    ('objective', dict(tolerance=0.1)),
])
def test_it_has_no_discrepancy_and_no_objective(build, configs, field, value):
    for training in (None, dict(type='mmfeatjnd.Distillation'),
                     dict(draws=4)):
        cfg = configs[1]('classifier', training=training, **SENSITIVITY)
        with pytest.raises(
                ValueError, match='Distillation needs neither a '
                '`discrepancy` nor an `objective`'):
            build(dict(cfg, **{field: value}))


def test_the_default_training(build):
    assert type(build('classifier', **SENSITIVITY).featjnd_training) is \
        Distillation
    model = build('classifier', training=dict(draws=4), **SENSITIVITY)
    assert model.featjnd_training.draws == 4
    for mode in ('signed', 'envelope'):
        training = build(
            'classifier', estimator=dict(mode=mode)).featjnd_training
        assert type(training).__name__ == 'DrawnNRMSE'


def test_regions_are_refused(build, batch):
    """The gradient belongs to other regions than those of the prediction."""
    model = build('detector', split='roi_head.mask_head.convs',
                  in_channels=[16], **SENSITIVITY).train()
    with pytest.raises(ValueError, match='Use a split before them'):
        model.loss(*batch('detector'))
