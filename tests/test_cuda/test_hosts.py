"""Hosts of the three libraries: training steps and tests."""
import copy

import pytest
import torch

from mmfeatjnd.models import Perturbation, Quantization, neck_at
from mmfeatjnd.models.forward_runs import every_forward

KINDS = ['classifier', 'segmentor', 'detector']
TRAININGS = dict(
    distilled=dict(estimator=dict(mode='sensitivity')),
    drawn=dict(training=dict(type='mmfeatjnd.DrawnNRMSE')),
    learned=dict(
        training=dict(type='mmfeatjnd.LearnedNRMSE'),
        objective=dict(magnitude_weight=1.0, tolerance=0.01, adapt=0.1)),
    quantized=dict(
        training=dict(
            type='mmfeatjnd.QuantizationSurrogate', magnitude='rate'),
        estimator=dict(mode='envelope')))


def train(model, batch, device, steps=2, amp=None):
    """Losses of the last step, and gradients of the estimators."""
    model = model.train().to(device)
    inputs, samples = batch
    inputs, samples = inputs.to(device), [s.to(device) for s in samples]
    for _ in range(steps):
        model.zero_grad()
        with torch.autocast(device.type, amp, enabled=amp is not None):
            losses = model.loss(inputs, samples)
        model.parse_losses(losses)[0].backward()
    return losses, [p.grad for p in model.neck.estimators.parameters()]


@pytest.mark.parametrize('training', TRAININGS)
@pytest.mark.parametrize('kind', KINDS)
def test_a_training_step(device, build, batch, kind, training):
    """The same losses. Where a detector matches its targets, a last bit can
    choose another proposal, so there only magnitudes are compared."""
    here, there = (
        train(build(kind, **TRAININGS[training]), batch(kind), where)
        for where in (torch.device('cpu'), device))
    for name, value in here[0].items():
        assert there[0][name].isfinite()
        if kind != 'detector' or 'magnitude' in name:
            torch.testing.assert_close(
                there[0][name].cpu(), value, rtol=1e-2, atol=1e-4)
    for grad in there[1]:
        assert grad is not None and grad.isfinite().all()
    assert any(g.abs().sum() > 0 for g in there[1])


@pytest.mark.parametrize('amp', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kind', KINDS)
def test_a_training_step_in_mixed_precision(device, build, batch, kind, amp):
    if kind == 'detector' and (device.type == 'cpu' or
                               amp == torch.bfloat16):
        pytest.skip("MMCV's RoIAlign has no bfloat16, nor half on a CPU")
    losses, grads = train(
        build(kind), batch(kind), device, steps=1, amp=amp)
    exact, _ = train(build(kind), batch(kind), device, steps=1)
    assert all(v.isfinite() for v in losses.values())
    assert all(g.isfinite().all() for g in grads)
    torch.testing.assert_close(
        losses['jnd_magnitude'], exact['jnd_magnitude'], rtol=0.05, atol=0.05)


@pytest.mark.parametrize('amp', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kind', ['classifier', 'segmentor'])
def test_distillation_in_mixed_precision(device, build, batch, kind, amp):
    (losses, grads), (exact, _) = (
        train(build(kind, estimator=dict(mode='sensitivity')), batch(kind),
              device, steps=1, amp=dtype) for dtype in (amp, None))
    assert all(v.isfinite() for v in losses.values())
    assert all(g.isfinite().all() for g in grads)
    for name in ('jnd_sensitivity', 'jnd_error'):  # nats
        torch.testing.assert_close(
            losses[name], exact[name], rtol=0.05, atol=0.05)


@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.5), Quantization('range', scale=0.1),
    Perturbation('gradient-sensitivity', 0.5)], ids=lambda o: o.name)
@pytest.mark.parametrize('plain', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_a_test_step(device, build, configs, batch, kind, plain, operation):
    """With our neck in the host, or beside it."""
    measured, values = [], []
    for where in (torch.device('cpu'), device):
        model = build(configs[0](kind) if plain else kind).to(where)
        inputs, samples = batch(kind)
        inputs = inputs.to(where)
        samples = [s.to(where) for s in samples]
        with torch.no_grad(), every_forward(
                neck_at(model), operation) as runs:
            features = model(inputs, samples, mode='tensor')
        measured.append({k: v.cpu() for k, v in runs[0].measured.items()})
        values.append(features)
    for name, value in measured[0].items():
        assert measured[1][name].isfinite().all()
        if kind == 'detector' and operation.needs_sensitivity \
                and name != 'nrmse':
            continue  # a last bit can choose another proposal
        torch.testing.assert_close(
            measured[1][name], value, rtol=2e-2, atol=1e-3)
    assert type(values[0]) is type(values[1])


@pytest.mark.parametrize('kind', KINDS)
def test_predictions(device, build, batch, kind):
    model = build(kind).to(device)
    inputs, samples = batch(kind)
    with torch.no_grad(), every_forward(
            neck_at(model), Perturbation('gaussian', 0.5)) as runs:
        results = model(
            inputs.to(device), [s.to(device) for s in samples],
            mode='predict')
    assert len(results) == 2 and len(runs) == 1


@pytest.mark.parametrize('mode', ['sensitivity', 'signed'])
def test_nothing_waits_in_a_training_step(device, no_waiting, build, batch,
                                          mode):
    """On a host that does not wait by itself. The first step looks for
    faults, every fiftieth does, and the others do not wait."""
    model = build('classifier', estimator=dict(mode=mode)).train().to(device)
    inputs, samples = batch('classifier')
    inputs, samples = inputs.to(device), [s.to(device) for s in samples]
    optimizer = torch.optim.SGD(model.neck.estimators.parameters(), 1e-3)

    def step():
        losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        torch.nn.utils.clip_grad_norm_(model.neck.estimators.parameters(), 1.)
        optimizer.step()

    for _ in range(3):
        step()
    with no_waiting():
        step()


@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.5), Quantization('range', noise_budget=0.1)],
                         ids=lambda o: o.name)
def test_nothing_waits_in_a_test_step(device, no_waiting, build, configs,
                                      batch, operation):
    model = build(configs[0]('classifier')).to(device)
    inputs, samples = batch('classifier')
    inputs, samples = inputs.to(device), [s.to(device) for s in samples]
    neck = neck_at(model)
    for context in (torch.no_grad, no_waiting):
        with context(), torch.no_grad(), every_forward(
                neck, operation) as runs:
            model(inputs, samples, mode='tensor')
    assert runs[0].measured['nrmse'].shape == (2, )


def test_memory_does_not_grow_in_training(device, build, batch):
    if device.type == 'cpu':
        pytest.skip('only a GPU counts its memory')
    model = build('classifier').train().to(device)
    inputs, samples = batch('classifier')
    inputs, samples = inputs.to(device), [s.to(device) for s in samples]
    optimizer = torch.optim.SGD(model.neck.estimators.parameters(), 1e-3)
    for i in range(200):
        optimizer.zero_grad()
        model.parse_losses(model.loss(inputs, samples))[0].backward()
        optimizer.step()
        if i == 60:
            before = torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() <= before


def test_a_copy_moves_alone(device, build):
    """What knows its host goes where its host goes."""
    model = build('classifier')
    other = copy.deepcopy(model).to(device)
    assert next(model.neck.estimators.parameters()).device.type == 'cpu'
    assert next(other.neck.estimators.parameters()).device == next(
        other.backbone.parameters()).device
