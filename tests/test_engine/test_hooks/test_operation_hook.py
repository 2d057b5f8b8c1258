"""What holds for every hook that operates: nothing outlives it."""
import copy

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from mmfeatjnd.apis import save_estimator
from mmfeatjnd.engine.hooks import PerturbationHook, QuantizationHook

HOOKS = {
    'perturbation': lambda **kw: PerturbationHook('featjnd', **kw),
    'quantization': lambda **kw: QuantizationHook(policy='featjnd', **kw),
}


@pytest.fixture(params=HOOKS)
def hook(request):
    return HOOKS[request.param]


@pytest.fixture
def host(build):
    """A host whose estimator is an envelope and taken for trained."""

    def make(split='backbone', mode='envelope', **neck):
        if split != 'backbone':
            neck.update(split=split, in_channels=16)
        return build('classifier', estimator=dict(mode=mode), **neck)

    return make


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_clean(model):
    assert model.neck.change is None and not model.neck.attached
    for module in model.modules():
        assert 'forward' not in vars(module)
        assert not module._forward_hooks and not module._forward_pre_hooks


# ----------------------------------------------------------- a test breaks off
class Broken(BaseMetric):
    """An evaluator that fails at the second batch."""

    def process(self, data_batch, data_samples):
        self.results.append(None)
        if len(self.results) == 2:
            raise RuntimeError('the evaluator fails')

    def compute_metrics(self, results):
        return dict()


def break_host(model):
    """The host fails at the fourth image, behind the split."""
    seen = []

    def fail(module, inputs):
        seen.append(len(inputs[0]))
        if sum(seen) > 3:
            raise RuntimeError('the host fails')

    return model.head.fc.register_forward_pre_hook(fail)


@pytest.mark.parametrize('tta', [False, True], ids=['', 'tta'])
@pytest.mark.parametrize('split', ['backbone', 'backbone.layer2'])
@pytest.mark.parametrize('where', ['evaluator', 'host', 'data'])
def test_a_test_that_breaks_off_leaves_the_model_clean(
        test, host, hook, where, split, tta, tmp_path):
    model = host(split)
    source = host(split)
    torch.nn.init.constant_(source.neck.estimators[0].expand.bias, -1.0)
    source.neck.estimators[0].initial.fill_(1)
    save_estimator(source, tmp_path / 'estimator.safetensors')
    clean, _ = test(model=model, tta=tta)
    before = state_of(model)
    handle = break_host(model) if where == 'host' else None
    with pytest.raises((RuntimeError, ValueError),
                       match='NaN' if where == 'data' else f'the {where}'):
        test(hook(estimator=str(tmp_path / 'estimator.safetensors')),
             model=model, tta=tta, broken=where == 'data', trained=None,
             metric=Broken() if where == 'evaluator' else None)
    if handle is not None:
        handle.remove()
    assert_clean(model)
    after = state_of(model)
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert test(model=model, tta=tta)[0] == clean


def test_after_the_iterations_the_model_is_the_hosts(test, host, batch):
    """As an evaluator, or another hook, may run it."""
    model = host()
    inputs, samples = batch('classifier', 2)

    def run():
        assert_clean(model)
        with torch.no_grad():
            return model(inputs, samples, mode='tensor')

    expected, seen = run(), []

    class Look(Several):

        def compute_metrics(self, results):
            seen.append(run())
            return dict()

    test(PerturbationHook('gaussian', 2.0), model=model, metric=Look())
    assert len(seen) == 1 and torch.equal(seen[0], expected)


def test_the_same_runner_tests_again(test, host):
    """As in a notebook, after an interruption."""
    model, runners = host(), []

    class Interrupt(Hook):

        def before_test(self, runner):
            runners.append(runner)

        def after_test_iter(self, runner, batch_idx, **kwargs):
            if len(runners) == 1 and batch_idx == 1:
                raise KeyboardInterrupt

    expected, _ = test(PerturbationHook('gaussian'), model=model)
    with pytest.raises(KeyboardInterrupt):
        test(PerturbationHook('gaussian'), Interrupt(), model=model)
    again = runners[0].test()
    assert again['jnd/nrmse'] == expected['jnd/nrmse']
    assert 'run_iter' not in vars(runners[0].test_loop)


def test_two_hooks_at_once_are_refused(test, host):
    with pytest.raises(RuntimeError, match='QuantizationHook: another hook '
                       'operates.*one of them'):
        test(PerturbationHook('gaussian'), QuantizationHook(policy='one-step'),
             model=host())


# ------------------------------------------------------------------ divergence
@pytest.mark.parametrize('split', ['backbone', 'backbone.layer2'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_diverged_estimator_stops_the_test(test, host, hook, split, value):
    model = host(split)
    # of the last channel only
    with torch.no_grad():
        model.neck.estimators[0].expand.bias[-1] = value
        if value == float('inf'):  # an envelope is bounded
            model.neck.estimators[0].channels.mean_square[-1] = value
    with pytest.raises(ValueError, match='NaN or infinite.*what the operation '
                       f"made of level 0 at split='{split}' .image 0.: the "
                       'estimator has diverged'):
        test(hook(), model=model)
    assert_clean(model)


def test_the_image_is_named(test, host):
    with pytest.raises(ValueError, match=r'level 0 .* \(image 3\): the host '
                       'is broken before any operation'):
        test(PerturbationHook('gaussian'), model=host(), broken=True)


# ------------------------------------------------------------ estimator files
def test_validation_with_a_file_leaves_what_is_trained_alone(
        test, host, hook, tmp_path):
    """The weights and statistics after a training are those without the
    hook, entry by entry."""
    start = host()
    source = host()
    source.neck.estimators[0].initial.fill_(1)
    torch.nn.init.constant_(source.neck.estimators[0].expand.bias, -1.0)
    one = copy.deepcopy(start)
    test(what='train', model=one, trained=False)
    # of the very host that is trained, since training inits it anew
    source.load_state_dict({
        **one.state_dict(),
        **{f'neck.estimators.{k}': v
           for k, v in source.neck.estimators.state_dict().items()}
    })
    save_estimator(source, tmp_path / 'estimator.safetensors')

    other = copy.deepcopy(start)
    seen = []

    class Watch(Hook):
        priority = 'VERY_LOW'

        def after_val_epoch(self, runner, metrics=None):
            seen.append(metrics)

    test(hook(estimator=str(tmp_path / 'estimator.safetensors')), Watch(),
         what='train', model=other, trained=False)
    # always the estimator of the file, so always the same numbers
    assert len(seen) == 3
    assert 'jnd/nrmse' in seen[0] and seen[0] == seen[1] == seen[2]
    expected, found = (
        m.neck.estimators.state_dict() for m in (one, other))
    assert len(expected) == 18
    assert [k for k, v in expected.items()
            if not torch.equal(found[k], v)] == []
    assert not torch.equal(
        found['0.expand.bias'], source.neck.estimators[0].expand.bias)


def test_a_file_of_the_other_mode_is_refused(test, host, hook, tmp_path):
    source = host(mode='signed')
    source.neck.estimators[0].initial.fill_(1)
    save_estimator(source, tmp_path / 'signed.pth')
    model = host()
    with pytest.raises(ValueError, match=r"trained with mode=\['signed'\], "
                       r"but the config has mode=\['envelope'\]"):
        test(hook(estimator=str(tmp_path / 'signed.pth')), model=model)
    assert_clean(model)


# --------------------------------------------------------------------- metrics
class Several(BaseMetric):
    """Metrics that are no single number."""

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        return {
            'confusion': torch.eye(2),
            'per_class': [0.5, 0.25],
            'bbox_mAP': -1.0
        }


def test_metrics_of_the_host_pass_as_they_are(test, host):
    metrics, _ = test(
        PerturbationHook('gaussian'), model=host(), metric=Several())
    assert torch.equal(metrics.pop('confusion'), torch.eye(2))
    assert metrics.pop('per_class') == [0.5, 0.25]
    assert metrics.pop('bbox_mAP') == -1.0
    assert set(metrics) == {'jnd/nrmse', 'jnd/participation_ratio'}
