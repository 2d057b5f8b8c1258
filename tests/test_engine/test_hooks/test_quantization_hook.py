import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import save_estimator
from mmfeatjnd.coding import encode_image
from mmfeatjnd.coding.bitstream import QuantizedLevel
from mmfeatjnd.engine.hooks import QuantizationHook
from mmfeatjnd.functional import Steps

MEASURED = {
    'jnd/nrmse', 'jnd/bits_per_element', 'jnd/coded_bytes',
    'jnd/coded_bits_per_element'
}
POLICIES = [
    'featjnd', 'permuted', 'uniform', 'range', 'gradient', 'water-filling',
    'clip-uniform'
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
    metrics, model = test(hook(policy, noise_budget=0.5))
    assert set(metrics) == {'score'} | MEASURED
    assert metrics['jnd/nrmse'] == pytest.approx(0.5, rel=0.1)
    assert metrics['score'] != clean['score']
    # side information included
    assert 0 < metrics['jnd/bits_per_element'] < metrics[
        'jnd/coded_bits_per_element']
    assert metrics['jnd/coded_bytes'] > 10
    assert model.neck.operation is None


def test_the_bytes_are_those_of_the_streams(test):
    operations = hook('range', scale=0.2)
    metrics, _ = test(operations, size=6)
    quantized = operations.operation.quantized
    lengths = [
        len(
            encode_image([
                QuantizedLevel(
                    level[i:i + 1],
                    Steps(*(None if x is None else x[i:i + 1]
                            for x in steps)), dtype)
                for level, steps, dtype in quantized
            ])) for i in range(6)
    ]
    assert metrics['jnd/coded_bytes'] == pytest.approx(sum(lengths) / 6)


@pytest.mark.parametrize('policy', ['featjnd', 'permuted', 'clip-uniform'])
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
    quantized, _ = test(hook('uniform'), model=model)
    assert test(model=model)[0] == clean != quantized


def test_without_bitstreams(test):
    metrics, _ = test(hook('uniform', coded=False))
    assert set(metrics) == {'score', 'jnd/nrmse', 'jnd/bits_per_element'}


def test_validation_within_training(test):
    """The estimator's steps, after each of its iterations; training itself
    sees no operation of the hook."""
    seen = []

    class Watch(QuantizationHook):

        def before_train_iter(self, runner, *args, **kwargs):
            assert runner.model.neck.operation is None

        def after_val_epoch(self, runner, metrics=None):
            super().after_val_epoch(runner, metrics)
            seen.append(metrics)

    test(Watch(policy='featjnd'), what='train')
    assert len(seen) == 3
    assert all(set(m) == {'score'} | MEASURED for m in seen)
    assert len({m['jnd/nrmse'] for m in seen}) == 3


def test_an_estimator_file(test, build, tmp_path):
    path = str(tmp_path / 'estimator.pth')
    source = build('classifier', estimator=dict(mode='envelope'))
    with torch.no_grad():
        source.neck.estimators[0].expand.bias.fill_(-1.)
    source.neck.estimators[0].num_updates.fill_(1)
    save_estimator(source, path)
    expected, _ = test(hook(), model=source)
    metrics, model = test(hook(estimator=path), trained=False)
    assert metrics == expected != test(hook())[0]
    bias = model.neck.estimators[0].expand.bias
    assert torch.equal(bias, torch.full_like(bias, -1.))


def test_an_estimator_that_was_never_trained_is_refused(test):
    with pytest.raises(RuntimeError, match='needs a trained estimator'):
        test(hook(), trained=False)
    test(hook('uniform'), trained=False)


def test_a_signed_estimator_is_refused(test):
    for policy in ('featjnd', 'permuted'):
        with pytest.raises(RuntimeError, match='configs/quantization'):
            test(hook(policy), mode='signed')
    test(hook('uniform'), mode='signed')


def test_gradient_needs_the_model(test, build, configs):
    with pytest.raises(RuntimeError, match="type='mmfeatjnd.FeatJND'"):
        test(hook('gradient'), model=build(configs[1](
            'classifier', plain=True)))


def test_a_host_without_a_neck(test, build, configs):
    with pytest.raises(RuntimeError, match='must hold one FeatJNDNeck'):
        test(hook('uniform'), model=build(configs[0]('classifier')))


@pytest.mark.parametrize('kwargs, message', [
    (dict(policy='fetjnd'), "but got 'fetjnd'"),
    (dict(scale=1., bits=1.), 'one of scale, noise_budget and bits'),
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
            policy=dict(type='clip-uniform', levels=8),
            bits=0.5))
    built = HOOKS.build(cfg._cfg_dict)
    assert isinstance(built, QuantizationHook)
    assert built.operation.bits == 0.5
    assert built.operation.policy.levels == 8
