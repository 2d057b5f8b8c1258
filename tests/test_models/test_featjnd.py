import copy
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope
from torch.nn import functional as F

from mmfeatjnd.functional import nrmse
from mmfeatjnd.models import (
    BaseTraining,
    ConvEstimator,
    task_sensitivity,
)

# The estimator decides how strong its distortion is.
FREE = dict(
    training=dict(type='mmfeatjnd.LearnedNRMSE'),
    objective=dict(magnitude_weight=1.))
KINDS = ['classifier', 'segmentor', 'detector']


def total(model, losses):
    return model.parse_losses(losses)[0]


@pytest.mark.parametrize('kind', KINDS)
def test_only_the_estimators_learn(build, batch, kind):
    model = build(kind).train()
    inputs, samples = batch(kind)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {
        f'neck.estimators.{n}'
        for n, _ in model.neck.estimators.named_parameters()
    }
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 0.1)
    losses = model(inputs, samples, mode='loss')
    assert set(losses) == {
        'loss_jnd_discrepancy', 'loss_jnd_magnitude', 'jnd_discrepancy',
        'jnd_magnitude', 'jnd_multiplier'}
    total(model, losses).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == (name in trainable), name
        if name in trainable:
            assert torch.isfinite(p.grad).all()
            # the segmentor's head reads the last level only; DDP waits for a
            # gradient of the others, too
            read = kind != 'segmentor' or name.startswith(
                'neck.estimators.3.')
            assert (p.grad.abs().sum() > 0) == read
    optimizer.step()
    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed >= {
        k for k in trainable
        if kind != 'segmentor' or k.startswith('neck.estimators.3.')}
    # not the running statistics of the host's BatchNorm either
    assert all(k.startswith('neck.estimators.') for k in changed)


@pytest.mark.parametrize('kind', KINDS)
def test_modes(build, kind):
    model = build(kind)
    assert not any(m.training for m in model.modules())
    for _ in range(2):
        model.train()
        own = {model, model.featjnd_objective, model.neck.estimators}
        own |= set(model.neck.estimators.modules())
        own |= {model.featjnd_discrepancy}
        assert {m for m in model.modules() if m.training} == own
        model.eval()
        assert not any(m.training for m in model.modules())


def test_the_model_is_the_host(build, configs):
    from mmpretrain.models import ImageClassifier
    model = build('classifier')
    assert isinstance(model, ImageClassifier)
    assert type(model).__name__ == 'FeatJNDImageClassifier'
    assert type(model) is type(build('classifier'))
    # the estimators are in it once
    names = [n for n, m in model.named_modules(remove_duplicate=False)
             if isinstance(m, ConvEstimator)]
    assert names == ['neck.estimators.0']


@pytest.mark.parametrize('kind', KINDS)
def test_without_an_operation_it_predicts_as_the_host(build, configs, batch,
                                                      kind):
    host, model = build(configs[0](kind)), build(kind)
    model.load_state_dict(host.state_dict(), strict=False)
    inputs, _ = batch(kind)
    with torch.no_grad():
        for a, b in zip(model.extract_feat(inputs),
                        host.extract_feat(inputs), strict=True):
            assert torch.equal(a, b)


def test_builds_without_a_default_scope(configs):
    assert DefaultScope.get_current_instance() is None
    MODELS.build(ConfigDict(configs[1]('classifier')))
    assert DefaultScope.get_current_instance() is None


@pytest.mark.parametrize('neck', [
    dict(), dict(split='backbone.layer2', in_channels=16)])
def test_the_gradient_equals_a_direct_computation(build, batch, neck):
    model = build('classifier', **FREE, **neck)
    inputs, samples = batch('classifier')
    model.train()
    losses = model.loss(inputs, samples)
    parameters = list(model.neck.estimators.parameters())
    grads = torch.autograd.grad(total(model, losses), parameters)

    other = build('classifier', **neck)
    estimator = other.neck.estimators[0].train()

    def logits(feature):
        if neck:
            feature = other.backbone.layer3(feature)
        return other.head.fc(feature.mean((2, 3)))

    with torch.no_grad():
        feature = other.backbone.relu(
            other.backbone.norm1(other.backbone.conv1(inputs)))
        feature = other.backbone.layer2(other.backbone.layer1(feature))
        if not neck:
            feature = other.backbone.layer3(feature)
        clean = logits(feature)
    estimator.follow([feature])
    delta = estimator(feature)
    d = F.kl_div(logits(feature + delta).log_softmax(1), clean.softmax(1),
                 reduction='batchmean')
    rms = feature.square().mean((0, 2, 3), keepdim=True).sqrt()
    alive = (rms > 0).expand_as(delta)
    m = ((delta.abs() / rms)[alive] + 1e-3).log().mean()
    torch.testing.assert_close(losses['jnd_discrepancy'], d, rtol=1e-3,
                               atol=1e-7)
    torch.testing.assert_close(losses['jnd_magnitude'], m)
    expected = torch.autograd.grad(d - m, list(estimator.parameters()))
    for a, b in zip(grads, expected):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def capture(model):
    """(feature, distortion) of every level in the perturbed pass."""
    seen, neck = [], model.neck
    run = neck.run

    def spy(operation, *args, **kwargs):
        assert isinstance(operation, BaseTraining)

        def watched(feature, level, visit):
            out = operation(feature, level, visit)
            seen.append((feature.detach(), (out - feature).detach()))
            return out

        watched.begin = operation.begin
        return run(watched, *args, **kwargs)

    neck.run = spy
    return seen


@pytest.mark.parametrize('mode', ['signed', 'envelope'])
def test_strength_of_every_image_lies_in_the_range(build, batch, mode):
    model = build(
        'detector',
        estimator=dict(mode=mode),
        training=dict(
            type='mmfeatjnd.DrawnNRMSE', nrmse=(0.3, 0.9))).train()
    seen = capture(model)
    inputs, samples = batch('detector', 6)
    losses = model.loss(inputs, samples)
    levels = torch.stack([nrmse(d, f) for f, d in seen])
    assert levels.shape == (4, 6)
    assert levels.min() > 0.299 and levels.max() < 0.901
    # one strength an image, the same in all levels, and not one for all
    torch.testing.assert_close(levels, levels[:1].expand(4, 6), rtol=1e-3,
                               atol=0)
    assert levels[0].max() - levels[0].min() > 0.05
    total(model, losses).backward()
    seen.clear()
    model.loss(inputs, samples)
    again = torch.stack([nrmse(d, f) for f, d in seen])
    assert not torch.allclose(levels, again, rtol=1e-2)  # another step


@pytest.fixture
def at_step():
    """What a Runner tells everybody: the number of the step."""
    hub = MessageHub.get_instance('training')
    yield lambda step: hub.update_info('iter', step)
    MessageHub._instance_dict.clear()


def test_noise_of_a_step(build, batch, at_step):
    """Other noise in every step, and no global random state."""
    cfg = dict(estimator=dict(mode='envelope'))
    model = build('classifier', **cfg).train()
    inputs, samples = batch('classifier')
    seen = capture(model)
    state = torch.get_rng_state()
    for step in (0, 1):
        at_step(step)
        model.loss(inputs, samples)
    assert torch.equal(torch.get_rng_state(), state)
    (_, first), (_, second) = seen
    signs = (first.sign() == second.sign())[first != 0].float().mean()
    assert 0.4 < signs < 0.6
    # resuming before the second step repeats it
    at_step(0)
    resumed = build('classifier', **cfg).train()
    resumed.loss(inputs, samples)
    state = copy.deepcopy(resumed.state_dict())
    at_step(1)
    again = build('classifier', **cfg).train()
    again.load_state_dict(state)
    seen_again = capture(again)
    again.loss(inputs, samples)
    assert torch.equal(seen_again[0][1], second)


def test_noise_of_steps_that_nobody_counts(build, batch):
    model = build('classifier', estimator=dict(mode='envelope')).train()
    seen = capture(model)
    for _ in range(3):
        model.loss(*batch('classifier'))
    signs = [delta.sign() for _, delta in seen]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not torch.equal(signs[a], signs[b])


@pytest.mark.parametrize('kind', ['detector', 'segmentor', 'classifier'])
def test_a_resumed_step_is_that_step(build, batch, at_step, kind):
    """Also the draws of the heads' samplers."""
    fields = dict(objective=dict(magnitude_weight=1.))
    if kind == 'detector':
        fields.update(discrepancy=dict(type='mmfeatjnd.Annotation'))

    def train(model, steps):
        for step in steps:
            at_step(step)
            losses = model.loss(*batch(kind, first=2 * step))
            optimizer = torch.optim.SGD(model.neck.estimators.parameters(),
                                        0.1)
            optimizer.zero_grad()
            total(model, losses).backward()
            optimizer.step()
        return losses

    model = build(kind, **fields).train()
    train(model, (0, 1))
    state = copy.deepcopy(model.state_dict())
    expected = train(model, (2, ))
    resumed = build(kind, **fields).train()
    resumed.load_state_dict(state)
    for name, value in train(resumed, (2, )).items():
        assert torch.equal(value, expected[name]), name
    for key, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_padding_is_none_of_the_training(build, batch):
    """What lies beyond an image is neither seen by the estimators, nor
    distorted, nor a part of the strength."""
    model = build(
        'detector',
        training=dict(type='mmfeatjnd.DrawnNRMSE', nrmse=(0.5, 0.5)),
        discrepancy=dict(type='mmfeatjnd.Annotation')).train()
    seen, given = capture(model), []
    inputs, samples = batch('detector')
    samples[1].set_metainfo(dict(img_shape=(24, 32)))
    apply_level = model.neck.apply_level

    def watch(feature, level):
        out = apply_level(feature, level)
        given.append((out - feature).detach())
        return out

    model.neck.apply_level = watch
    losses = model.loss(inputs, samples)
    total(model, losses).backward()
    sizes = [tuple(f.shape[2:]) for f, _ in seen]
    assert sizes == [(8, 8), (6, 8), (4, 4), (3, 4), (2, 2), (1, 1)]
    for feature, delta in seen:
        torch.testing.assert_close(
            nrmse(delta, feature), torch.full((len(feature), ), 0.5))
    for delta, height in zip(given[-4:], (6, 3, 2, 1)):
        assert delta[0].abs().amax(0).all()
        assert delta[1, :, :height].any() and not delta[1, :, height:].any()
    assert [e.channels.updates for e in model.neck.estimators] == [1] * 4


def test_a_batch_without_regions(build, batch):
    """Nothing is found: the head of masks sees nothing in training."""
    for thr, some in ((1.1, False), (0., True)):
        model = build(
            'detector',
            split='roi_head.mask_head.convs',
            in_channels=[16],
            discrepancy=dict(
                type='mmfeatjnd.PseudoGroundTruth', score_thr=thr)).train()
        losses = model.loss(*batch('detector'))
        total(model, losses).backward()
        grads = [p.grad for p in model.neck.estimators.parameters()]
        assert all(g.isfinite().all() for g in grads)
        assert any(g.any() for g in grads) == some
        assert (losses['jnd_magnitude'] != 0) == some
        assert model.neck.estimators[0].channels.updates == 1


def test_dual_ascent_on_a_host(build, batch):
    """The multiplier falls below the tolerance, rises above, and is kept."""
    fields = dict(
        FREE,
        objective=dict(
            magnitude_weight=1., tolerance=0.002, adapt=0.1, multiplier=0.1))
    model = build('classifier', **fields).train()
    inputs, samples = batch('classifier')
    optimizer = torch.optim.Adam(model.neck.estimators.parameters(), 1e-2)
    expected, factors = torch.tensor(0.1), set()
    for _ in range(12):
        losses = model.loss(inputs, samples)
        torch.testing.assert_close(losses['jnd_multiplier'], expected)
        torch.testing.assert_close(losses['loss_jnd_discrepancy'],
                                   expected * losses['jnd_discrepancy'])
        optimizer.zero_grad()
        total(model, losses).backward()
        optimizer.step()
        factor = math.exp(
            0.1 * min(1, losses['jnd_discrepancy'].item() / 0.002 - 1))
        factors.add(factor > 1)
        expected = expected * factor
    assert factors == {False, True}
    # and training goes on with it
    resumed = build('classifier', **fields)
    assert resumed.load_state_dict(model.state_dict())
    torch.testing.assert_close(resumed.featjnd_objective.multiplier, expected)


def test_deepcopy_is_independent(build, batch):
    """As EMAHook copies: its own neck, objective and hooks."""
    model = build('classifier').train()
    inputs, samples = batch('classifier')
    other = copy.deepcopy(model)
    assert other.featjnd_neck is other.neck is not model.neck
    assert other.featjnd_objective is not model.featjnd_objective
    updates = model.neck.estimators[0].channels.updates.clone()
    losses = other.loss(inputs, samples)
    total(other, losses).backward()
    assert model.neck.estimators[0].channels.updates == updates
    assert all(p.grad is None for p in model.parameters())
    assert other.neck.estimators[0].channels.updates == updates + 1
    # its pre-hooks map keys for the copy, not for the original
    other.featjnd_objective.multiplier.fill_(3.)
    state = {k: v for k, v in model.state_dict().items()
             if not k.startswith('featjnd_objective')}
    other.load_state_dict(state)
    assert other.featjnd_objective.multiplier == 3


@pytest.mark.parametrize('kind', KINDS)
def test_sensitivity_is_the_fisher_information(build, batch, kind):
    model = build(kind)
    inputs, samples = batch(kind)
    result = task_sensitivity(model.neck, inputs, samples)
    assert all(len(calls) == 1 for calls in result.values())
    result = {level: calls[0] for level, calls in result.items()}
    assert sorted(result) == list(model.neck.levels)
    with torch.no_grad():
        features = model.backbone(inputs)
    for level, value in result.items():
        assert value.shape == features[level].shape
        # the segmentor's head looks at the last level only
        used = kind != 'segmentor' or level == 3
        assert value.min() >= 0 and (value.max() > 0) == used
        assert not value.requires_grad
    assert all(p.grad is None for p in model.parameters())
    if kind == 'classifier':
        # J^T (diag p - p p^T) J of a linear layer behind a mean
        p = model.head.fc(features[0].mean((2, 3))).softmax(1)
        fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        size = features[0][0, 0].numel()
        weight = model.head.fc.weight / size
        exact = torch.einsum('kc,bkl,lc->bc', weight, fisher, weight)
        many = task_sensitivity(model.neck, inputs, samples, draws=400)[0][0]
        torch.testing.assert_close(
            many.mean((2, 3)), exact, rtol=0.25, atol=0)


def test_the_mode_of_the_host_in_each_pass(build, batch):
    """Losses as in training and predictions as in testing, both passes."""
    model = build('detector', discrepancy=dict(
        type='mmfeatjnd.PseudoGroundTruth')).train()
    inputs, samples = batch('detector')
    flags = []
    extract_feat = model.extract_feat

    def spy(inputs):
        flags.append((model.training, torch.is_grad_enabled()))
        return extract_feat(inputs)

    model.extract_feat = spy
    model.loss(inputs, samples)
    # which levels are read; predictions, their loss, that of the perturbed
    # pass
    passes = [(False, False), (True, False), (True, True)]
    assert flags == [(False, True), *passes]
    model.loss(inputs, samples)
    assert flags[4:] == passes
    assert model.training


def test_a_broken_host_is_noticed_when_training_starts(build, batch):
    model = build('classifier').train()
    with torch.no_grad():
        model.backbone.conv1.weight.fill_(float('nan'))
    with pytest.raises(ValueError, match='NaN or infinite.*level 0'):
        model.loss(*batch('classifier'))
    assert model.neck.change is None


def test_errors_at_build(build, configs):
    cfg = configs[1]('classifier')
    with pytest.raises(KeyError, match='not registered'):
        build(dict(cfg, host='mmpretrain.ImageClasifier'))
    with pytest.raises(TypeError, match='takes no `neck`.*TIMMBackbone'):
        build(dict(cfg, host='mmpretrain.TimmClassifier'))
    with pytest.raises(ValueError, match='must hold one FeatJNDNeck'):
        build(dict(cfg, neck=dict(type='GlobalAveragePooling')))
    with pytest.raises(ValueError, match='magnitude must be one of'):
        build(
            'classifier',
            training=dict(type='mmfeatjnd.LearnedNRMSE', magnitude='l1'))
    with pytest.raises(ValueError, match='DrawnNRMSE sets the NRMSE'):
        build('classifier', objective=dict(adapt=0.1, tolerance=0.1))
    with pytest.raises(ValueError, match='no estimator to train'):
        build(dict(cfg, neck=dict(type='mmfeatjnd.FeatJNDNeck')))
