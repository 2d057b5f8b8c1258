"""Hosts without a FeatJND neck in their config, and how ours are copied."""
import copy
import io
import pickle

import pytest
import torch

from mmfeatjnd.apis import load_estimator, read_estimator, save_estimator
from mmfeatjnd.models import (
    CheckpointError,
    Perturbation,
    Quantization,
    check_host_weights,
    find_neck,
    neck_at,
)
from mmfeatjnd.models.forward_runs import every_forward

CASES = [
    ('classifier', dict()),
    ('segmentor', dict(split='r3', in_channels=16)),
    ('segmentor', dict()),
    ('detector', dict()),
    ('detector', dict(levels=[1, 3])),
    ('detector', dict(split='fpn')),
    ('detector', dict(split='c2', in_channels=[16] * 4)),
    ('detector', dict(split='roi_head.bbox_roi_extractor', in_channels=16)),
    ('detector', dict(split='roi_head.mask_head.convs', in_channels=[16])),
]
IDS = [f'{kind}-{"-".join(map(str, neck.values()))}' for kind, neck in CASES]


def run(neck, batch, operation):
    """What a test step predicts and measures."""
    inputs, samples = copy.deepcopy(batch)
    with torch.no_grad(), every_forward(neck, operation) as runs:
        results = neck.host(inputs, samples, mode='predict')
    return [r.to_dict() for r in results], runs[0].measured


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)


@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.7),
    Perturbation('gradient-sensitivity', 0.7),
    Quantization('range', scale=0.1)], ids=lambda o: o.name)
@pytest.mark.parametrize('kind, neck', CASES, ids=IDS)
def test_a_neck_beside_the_host_is_one_in_the_host(build, configs, batch,
                                                   kind, neck, operation):
    if operation.needs_sensitivity and 'roi' in neck.get('split', ''):
        pytest.skip('the gradient there belongs to other regions')
    ours = build(configs[1](kind, plain=True, **neck))
    host = build(configs[0](kind))
    ours.load_state_dict(host.state_dict(), strict=False)
    state = {k: v.clone() for k, v in host.state_dict().items()}
    beside = neck_at(host, neck.get('split'), neck.get('levels'))
    assert beside.in_channels is None and not beside.estimators
    assert_equal(
        run(beside, batch(kind), operation),
        run(find_neck(ours), batch(kind), operation))
    inside = find_neck(ours)
    assert beside.levels == inside.levels
    assert beside.in_channels == inside.in_channels
    assert beside.read_levels == inside.read_levels
    # the host is as it was
    assert all(m is not beside for m in host.modules())
    assert not any(m._forward_hooks or 'forward' in vars(m)
                   for m in host.modules())
    assert_equal(dict(host.state_dict()), state)


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('kind, neck', CASES[:6], ids=IDS[:6])
def test_an_estimator_file_says_how_its_neck_is_built(
        build, configs, batch, tmp_path, kind, neck, shared):
    if shared:
        neck = dict(split='neck', shared=True) if kind == 'detector' else neck
    host = build(configs[0](kind))
    ours = build(configs[1](kind, plain=True, **neck))
    ours.load_state_dict(host.state_dict(), strict=False)
    for estimator in ours.neck.estimators:
        estimator.initial.fill_(1)
        torch.nn.init.normal_(estimator.expand.weight)
    file = tmp_path / 'jnd.safetensors'
    save_estimator(ours, file)
    beside = neck_at(host, estimator=file)
    with pytest.raises(CheckpointError, match='needs a trained estimator'):
        with beside.run(Perturbation('featjnd', 0.7)):
            host.extract_feat(batch(kind)[0])
    load_estimator(host, file, beside)
    operation = Perturbation('featjnd', 0.7)
    assert_equal(
        run(beside, batch(kind), operation),
        run(find_neck(ours), batch(kind), operation))
    with pytest.raises(ValueError, match='jnd.safetensors has split'):
        neck_at(host, 'backbone.layer1', estimator=file)
    with torch.no_grad():
        next(host.parameters()).mul_(2)
    with pytest.raises(CheckpointError, match='another host checkpoint'):
        read_estimator(host, file, beside)


def test_a_notebook(build, configs, batch):
    """Without anything that prepares the batch."""
    host = build(configs[0]('detector'))
    inputs, samples = batch('detector')
    neck = neck_at(host)
    assert neck.split == 'backbone' and neck.host is host
    with torch.no_grad():
        clean = host.extract_feat(inputs)
        with neck.run(Perturbation('gaussian', nrmse=0.5)) as measured:
            changed = host.extract_feat(inputs)
        again = host.extract_feat(inputs)
    torch.testing.assert_close(
        measured.measured['nrmse'], torch.full((2, ), 0.5).double(),
        rtol=1e-4, atol=0)
    assert not any(torch.equal(a, b) for a, b in zip(clean, changed))
    assert all(torch.equal(a, b) for a, b in zip(clean, again))


def test_another_host_is_asked_anew(build, configs, batch):
    detector, segmentor = (build(configs[0](k))
                           for k in ('detector', 'segmentor'))
    neck = neck_at(segmentor)
    run(neck, batch('segmentor'), Perturbation('gaussian', 0.5))
    assert neck.read_levels == (3, ) and len(neck.in_channels) == 4
    neck.bind(detector)
    assert neck.read_levels is neck.in_channels is neck.levels is None
    run(neck, batch('detector'), Perturbation('gaussian', 0.5))
    assert neck.read_levels == (0, 1, 2, 3)


def test_a_run_that_reaches_nothing(build, configs, batch):
    host = build(configs[0]('detector'))
    with pytest.raises(ValueError, match='was not reached'):
        with neck_at(host, 'neck').run(Perturbation('gaussian', 0.5)):
            host.backbone(batch('detector')[0])


def test_a_checkpoint_of_featjnd_is_none_of_the_plain_host(build, configs):
    """Its neck has other names there, and would stay as it began."""
    host, ours = build(configs[0]('detector')), build('detector')
    check_host_weights(ours, ours.state_dict())
    check_host_weights(ours, host.state_dict())
    check_host_weights(host, host.state_dict())
    with pytest.raises(CheckpointError, match="lacks .* e.g. 'neck."):
        check_host_weights(host, ours.state_dict())


# ------------------------------------------------------------ the built class
def test_the_class_says_what_it_is(build, configs):
    model, host = build('detector'), build(configs[0]('detector'))
    assert type(model).__name__ == f'FeatJND{type(host).__name__}'
    assert isinstance(model, type(host))


@pytest.mark.parametrize('copied', [
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
    lambda model: torch.load(_saved(model), weights_only=False),
], ids=['deepcopy', 'pickle', 'torch.save'])
@pytest.mark.parametrize('kind, neck', [
    ('classifier', dict(split='backbone.layer2', in_channels=16)),
    ('detector', dict())])
def test_a_copy_trains_and_tests(build, batch, kind, neck, copied):
    model = build(kind, **neck).train()
    other = copied(model)
    assert type(other) is type(model)
    assert other.featjnd_neck is other.neck is not model.neck
    assert other.neck.host is other and model.neck.host is model
    for x in (model, other):
        losses = x.loss(*batch(kind))
        x.parse_losses(losses)[0].backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)
    state = model.state_dict()
    other.load_state_dict(state)
    assert_equal(dict(other.state_dict()), dict(state))


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file
