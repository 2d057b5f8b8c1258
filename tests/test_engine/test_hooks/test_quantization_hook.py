import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import save_estimator
from mmfeatjnd.coding import encode_image
from mmfeatjnd.engine.hooks import QuantizationHook
from mmfeatjnd.models import find_neck
from mmfeatjnd.models.forward_runs import every_forward

MEASURED = {'jnd/nrmse', 'jnd/bits_per_element'}
CODED = {'jnd/coded_bytes', 'jnd/coded_bits_per_element',
         'jnd/bits_per_pixel'}
POLICIES = [
    'featjnd', 'permuted-steps', 'one-step', 'range', 'gradient',
    'water-filling', 'clip-uniform'
]


@pytest.fixture
def test(test):
    """The estimator in envelope mode."""

    def run(*hooks, mode='envelope', **kwargs):
        return test(*hooks, estimator=dict(mode=mode), **kwargs)

    return run


def hook(policy='featjnd', **kwargs):
    return QuantizationHook(policy=policy, **kwargs)


@pytest.mark.parametrize('policy', POLICIES)
def test_metrics_of_every_policy(test, policy):
    clean, _ = test()
    # four bins reach no more where they cover all features
    metrics, model = test(hook(policy, noise_budget=0.4, coded=True))
    assert set(metrics) == {'score'} | MEASURED | CODED
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=0.01)
    assert metrics['score'] != clean['score']
    # side information included
    assert 0 < metrics['jnd/bits_per_element'] < metrics[
        'jnd/coded_bits_per_element']
    assert metrics['jnd/coded_bytes'] > 10
    assert model.neck.change is None


def test_the_bytes_are_those_of_the_streams(test, batch):
    hooked = hook('range', scale=0.2, coded=True)
    metrics, model = test(hooked, size=6)
    with torch.no_grad(), every_forward(
            find_neck(model), hooked.operation) as runs:
        model(*batch('classifier', 6), mode='predict')
    (images, quantized), = runs[0].kept
    assert images.tolist() == list(range(6))
    lengths = [len(encode_image([quantized.of_image(i)])) for i in range(6)]
    assert metrics['jnd/coded_bytes'] == pytest.approx(sum(lengths) / 6)


@pytest.mark.parametrize(
    'policy', ['featjnd', 'permuted-steps', 'clip-uniform'])
def test_the_seed_and_nothing_else_decides(test, policy):
    torch.manual_seed(1)
    first, _ = test(hook(policy, scale=0.5))
    torch.manual_seed(2)
    assert test(hook(policy, scale=0.5))[0] == first
    for size in (1, 4):  # the last batch is not full
        other, _ = test(hook(policy, scale=0.5), size=size)
        assert other == pytest.approx(first, rel=1e-4)


def test_the_operation_is_removed(test):
    clean, model = test()
    quantized, _ = test(hook('one-step'), model=model)
    assert test(model=model)[0] == clean != quantized


def test_bitstreams_are_written_where_they_are_asked_for(test):
    metrics, _ = test(hook('one-step'))
    assert set(metrics) == {'score'} | MEASURED
    coded, _ = test(hook('one-step', coded=True))
    assert set(coded) == {'score'} | MEASURED | CODED
    assert {k: coded[k] for k in metrics} == metrics


def test_validation_within_training(test):
    """The estimator's steps, after each of its iterations; training itself
    sees no operation of the hook."""
    seen = []

    class Watch(QuantizationHook):

        def before_train_iter(self, runner, *args, **kwargs):
            assert runner.model.neck.change is None
            assert 'forward' not in vars(runner.model)

        def after_val_epoch(self, runner, metrics=None):
            super().after_val_epoch(runner, metrics)
            seen.append(metrics)

    test(Watch(policy='featjnd', coded=True), what='train')
    assert len(seen) == 3
    assert all(set(m) == {'score'} | MEASURED | CODED for m in seen)
    assert len({m['jnd/nrmse'] for m in seen}) == 3


def test_an_estimator_file(test, build, tmp_path):
    steps = dict(type='featjnd', power=1)
    path = str(tmp_path / 'estimator.safetensors')
    source = build('classifier', estimator=dict(mode='envelope'))
    with torch.no_grad():
        source.neck.estimators[0].expand.bias.fill_(-1.)
    source.neck.estimators[0].initial.fill_(1)
    save_estimator(source, path)
    expected, _ = test(hook(policy=steps), model=source)
    model = build('classifier', estimator=dict(mode='envelope'))
    own = {k: v.clone() for k, v in model.neck.estimators.state_dict().items()}
    metrics, _ = test(hook(policy=steps, estimator=path), model=model,
                      trained=False)
    assert metrics == expected != test(hook(policy=steps))[0]
    # the model keeps its own
    state = model.neck.estimators.state_dict()
    assert len(state) == len(own)
    assert all(torch.equal(v, own[k]) for k, v in state.items())


def test_an_estimator_that_was_never_trained_is_refused(test):
    with pytest.raises(ValueError, match='needs a trained estimator'):
        test(hook(), trained=False)
    test(hook('one-step'), trained=False)


def test_a_signed_estimator_is_refused(test):
    for policy in ('featjnd', 'permuted-steps'):
        with pytest.raises(ValueError, match='configs/featjnd'):
            test(hook(policy), mode='signed')
    test(hook('one-step'), mode='signed')


def test_gradient_on_a_plain_host(test, build, configs):
    plain = build(configs[1]('classifier', plain=True))
    metrics, _ = test(hook('gradient'), model=plain)
    assert metrics == test(hook('gradient'))[0]
    assert all(p.requires_grad for p in plain.backbone.parameters())
    assert all(p.grad is None for p in plain.parameters())


def test_a_plain_host(test, build, configs):
    """See the test of that name for the perturbation."""
    metrics, model = test(
        hook('one-step'), model=build(configs[0]('classifier')))
    assert MEASURED <= set(metrics)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize('kwargs, message', [
    (dict(policy='fetjnd'), "but got 'fetjnd'"),
    (dict(scale=1., bits=1.), 'one of scale, noise_budget, bits and'),
    (dict(bits=0), 'must be positive'),
])
def test_bad_settings_fail_at_build(kwargs, message):
    with pytest.raises(ValueError, match=message):
        hook(**kwargs)


def test_the_config_names_it():
    from mmengine.registry import HOOKS
    cfg = Config(
        dict(
            type='mmfeatjnd.QuantizationHook',
            policy=dict(type='clip-uniform', bins=8),
            bits=0.5))
    built = HOOKS.build(cfg._cfg_dict)
    assert isinstance(built, QuantizationHook)
    assert built.operation.bits == 0.5
    assert built.operation.policy.bins == 8
