import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.engine.hooks import PerturbationHook


def assert_clean(model):
    """Nothing of the hook is left on the model."""
    assert model.neck.change is None and not model.neck.attached
    for module in model.modules():
        assert 'forward' not in vars(module)
        assert not module._forward_hooks and not module._forward_pre_hooks


def hook(distortion='gaussian', nrmse=0.4, **kwargs):
    return PerturbationHook(distortion, nrmse, **kwargs)


@pytest.mark.parametrize('distortion', [
    'featjnd', 'gaussian', 'uniform-noise', 'permuted', 'sign-flipped',
    'channel-shuffled', 'shrinkage', 'amplification', 'gradient-sensitivity'
])
def test_metrics_of_every_distortion(test, distortion):
    clean, _ = test()
    assert set(clean) == {'score'}
    metrics, model = test(hook(distortion, 0.7))
    assert set(metrics) == {'score', 'jnd/nrmse', 'jnd/participation_ratio'}
    assert metrics['jnd/nrmse'] == pytest.approx(0.7, rel=1e-4)
    assert 0 < metrics['jnd/participation_ratio'] <= 1
    assert metrics['score'] != clean['score']
    assert_clean(model)
    if distortion == 'gaussian':
        assert metrics['jnd/participation_ratio'] == pytest.approx(
            1 / 3, rel=0.1)


def test_an_estimator_that_was_never_trained_is_refused(test):
    with pytest.raises(ValueError, match='needs a trained estimator'):
        test(hook('featjnd'), trained=False)
    test(hook('gaussian'), trained=False)


@pytest.mark.parametrize('definition', ['std', 'range'])
def test_definitions(test, definition):
    metrics, _ = test(hook(nrmse=0.1, definition=definition))
    assert metrics['jnd/nrmse'] == pytest.approx(0.1, rel=1e-4)


def test_the_seed_and_nothing_else_decides(test):
    torch.manual_seed(1)
    first, _ = test(hook())
    torch.manual_seed(2)
    assert test(hook())[0] == first
    # the last batch is not full
    for size in (1, 4, 6):
        other, _ = test(hook(), size=size)
        assert other == pytest.approx(first, rel=1e-5)
    assert test(hook(seed=1))[0]['score'] != first['score']


def test_one_hook_after_another(test):
    """The operation is removed, so the clean result comes back."""
    clean, model = test()
    distorted, _ = test(hook(), model=model)
    assert test(model=model)[0] == clean != distorted


def test_in_validation(test):
    metrics, model = test(hook(), what='val')
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert_clean(model)
    assert metrics == pytest.approx(test(hook())[0])


@pytest.mark.parametrize('size', [1, 4])
def test_tta(test, size):
    metrics, model = test(hook(), tta=True, size=size)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert metrics['score'] != test(tta=True, size=size)[0]['score']
    assert_clean(model)
    other, _ = test(hook(), tta=True, size=3)
    assert other == pytest.approx(metrics, rel=1e-5)


def test_gradient_sensitivity_of_every_view(test):
    metrics, model = test(hook('gradient-sensitivity'), tta=True)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert metrics['score'] != test(tta=True)[0]['score']
    assert_clean(model)


def test_a_named_split(test):
    neck = dict(split='backbone.layer2', in_channels=16)
    metrics, model = test(hook(), **neck)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert metrics['score'] != test(**neck)[0]['score']
    assert not model.backbone.layer2._forward_hooks


def test_a_level_that_is_not_reached(test):
    neck = dict(split='backbone.layer2', in_channels=[16, 16])
    with pytest.raises(ValueError, match=r'level\(s\) \[1\]'):
        test(hook(), **neck)


def test_broken_features(test):
    with pytest.raises(ValueError, match='NaN or infinite.*level 0'):
        test(hook(), broken=True)


# ----------------------------------------------------- hosts without our neck
@pytest.mark.parametrize('neck', [
    dict(), dict(split='neck', in_channels=32),
    dict(split='backbone.layer2', in_channels=16)])
@pytest.mark.parametrize('what', ['test', 'val'])
def test_a_plain_host_needs_a_hook_and_nothing_else(
        test, build, configs, neck, what):
    """The same as with a neck in the config."""
    ours = build(configs[1]('classifier', **neck))
    host = build(configs[0]('classifier'))
    ours.load_state_dict(host.state_dict(), strict=False)
    where = dict(split=neck['split']) if neck else {}
    expected, _ = test(hook(**where), model=ours, what=what)
    metrics, model = test(hook(**where), model=host, what=what)
    assert model is host and metrics == expected
    assert not any(m._forward_hooks for m in host.modules())


@pytest.mark.parametrize('size', [1, 3])
def test_tta_of_a_plain_host(test, build, configs, size):
    host = build(configs[0]('classifier'))
    clean, _ = test(tta=True, size=size, model=host)
    metrics, _ = test(hook(), tta=True, size=size, model=host)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert metrics['score'] != clean['score']
    assert test(tta=True, size=size, model=host)[0] == clean


def test_a_plain_host_that_is_trained(test, build, configs):
    """Its validations are distorted, and its training is not."""
    states = []
    for hooks in ((), (hook(), )):
        host = build(configs[0]('classifier'))
        test(*hooks, what='train', model=host)
        assert not any(m._forward_hooks for m in host.modules())
        states.append(host.state_dict())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key


def test_a_plain_host_has_no_estimator(test, build, configs):
    with pytest.raises(ValueError, match='needs a trained estimator'):
        test(hook('featjnd'), model=build(configs[0]('classifier')))


@pytest.mark.parametrize('where, message', [
    (dict(split='backbone.layer9'), "no module 'backbone.layer9'"),
    (dict(levels=[3]), r'levels=\[3\] must be different indices'),
    (dict(split='head.loss_module'), 'was not reached'),
])
def test_where_a_plain_host_has_no_split(test, build, configs, where,
                                         message):
    with pytest.raises(ValueError, match=message):
        test(hook(**where), model=build(configs[0]('classifier')))


def test_a_split_beside_that_of_the_config(test, build):
    with pytest.raises(ValueError, match='but the config has split='):
        test(hook(split='neck'))


@pytest.mark.parametrize('kwargs, message', [
    (dict(distortion='gausian'), "but got 'gausian'"),
    (dict(nrmse=0), 'must be positive'),
    (dict(nrmse=-1), 'must be positive'),
    (dict(definition='l1'), "but got 'l1'"),
])
def test_bad_settings_fail_at_build(kwargs, message):
    with pytest.raises(ValueError, match=message):
        hook(**kwargs)


def test_the_config_names_it():
    from mmengine.registry import HOOKS
    cfg = Config(dict(type='mmfeatjnd.PerturbationHook', nrmse=0.25))
    built = HOOKS.build(cfg._cfg_dict)
    assert isinstance(built, PerturbationHook)
    assert built.operation.nrmse == 0.25
