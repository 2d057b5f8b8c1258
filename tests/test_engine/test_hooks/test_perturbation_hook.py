import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmfeatjnd.engine.hooks import PerturbationHook

NUM = 6


class Images(Dataset):
    """Like a dataset of MMPretrain after its pipeline; two views for TTA."""

    metainfo = {}

    def __init__(self, make_batch, broken=False, views=1):
        self.make_batch = make_batch
        self.broken = broken
        self.views = views

    def __len__(self):
        return NUM

    def __getitem__(self, index):
        inputs, samples = self.make_batch('classifier', 1, index)
        if self.broken and index == 3:
            inputs[:] = float('nan')
        if self.views == 1:
            return dict(inputs=inputs[0], data_samples=samples[0])
        return dict(
            inputs=[inputs[0], inputs[0].flip(2)],
            data_samples=[samples[0], samples[0].clone()])


class MeanScore(BaseMetric):
    """A number that moves with any change of the logits."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            self.results.append(sample['pred_score'].double().tolist())

    def compute_metrics(self, results):
        scores = torch.tensor(results)
        weight = torch.arange(1., NUM + 1)[:, None] * torch.arange(
            1., scores.size(1) + 1)
        return dict(score=float((scores * weight).sum()))


@pytest.fixture
def test(build, batch, tmp_path):
    count = iter(range(100))

    def run(*hooks, size=2, validate=False, tta=False, broken=False,
            model=None, trained=True, **neck):
        from mmpretrain.models import AverageClsScoreTTA
        model = model or build('classifier', **neck)
        for estimator in getattr(model.neck, 'estimators', ()):
            estimator.num_updates.fill_(trained)
        wrapped = AverageClsScoreTTA(model) if tta else model
        dataloader = dict(
            batch_size=size,
            num_workers=0,
            dataset=Images(batch, broken, 2 if tta else 1),
            sampler=dict(type='DefaultSampler', shuffle=False))
        kind = 'val' if validate else 'test'
        runner = Runner(
            wrapped,
            str(tmp_path),
            custom_hooks=list(hooks),
            default_hooks=dict(checkpoint=None, sampler_seed=None),
            experiment_name=f'run{next(count)}',
            log_level='ERROR',
            default_scope='mmpretrain',
            **{
                f'{kind}_dataloader': dataloader,
                f'{kind}_evaluator': Evaluator(MeanScore()),
                f'{kind}_cfg': dict(),
            })
        return (runner.val if validate else runner.test)(), model

    return run


def hook(distortion='gaussian', nrmse=0.4, **kwargs):
    return PerturbationHook(distortion, nrmse, **kwargs)


@pytest.mark.parametrize('distortion', [
    'featjnd', 'gaussian', 'uniform', 'permuted', 'sign-flipped',
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
    assert model.neck.operation is None
    if distortion == 'gaussian':
        assert metrics['jnd/participation_ratio'] == pytest.approx(
            1 / 3, rel=0.1)


def test_an_estimator_that_was_never_trained_is_refused(test):
    with pytest.raises(RuntimeError, match='needs a trained estimator'):
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
    for size in (1, 4, NUM):
        other, _ = test(hook(), size=size)
        assert other == pytest.approx(first, rel=1e-5)
    assert test(hook(seed=1))[0]['score'] != first['score']


def test_one_hook_after_another(test):
    """The operation is removed, so the clean result comes back."""
    clean, model = test()
    distorted, _ = test(hook(), model=model)
    assert test(model=model)[0] == clean != distorted


def test_in_validation(test):
    metrics, model = test(hook(), validate=True)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert model.neck.operation is None
    assert metrics == pytest.approx(test(hook())[0])


@pytest.mark.parametrize('size', [1, 4])
def test_tta(test, size):
    metrics, model = test(hook(), tta=True, size=size)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert metrics['score'] != test(tta=True, size=size)[0]['score']
    assert model.neck.operation is None
    other, _ = test(hook(), tta=True, size=3)
    assert other == pytest.approx(metrics, rel=1e-5)


def test_gradient_sensitivity_needs_the_model(test):
    with pytest.raises(RuntimeError, match='without --tta'):
        test(hook('gradient-sensitivity'), tta=True)


def test_a_named_split(test):
    neck = dict(split='backbone.layer2', in_channels=16)
    metrics, model = test(hook(), **neck)
    assert metrics['jnd/nrmse'] == pytest.approx(0.4, rel=1e-4)
    assert metrics['score'] != test(**neck)[0]['score']
    assert not model.backbone.layer2._forward_hooks


def test_a_level_that_is_not_reached(test):
    neck = dict(split='backbone.layer2', in_channels=[16, 16])
    with pytest.raises(RuntimeError, match=r'level\(s\) \[1\]'):
        test(hook(), **neck)


def test_broken_features(test):
    with pytest.raises(ValueError, match='NaN or infinite.*level 0'):
        test(hook(), broken=True)


def test_a_host_without_a_neck(test, build, configs):
    with pytest.raises(RuntimeError, match='must hold one FeatJNDNeck'):
        test(hook(), model=build(configs[0]('classifier')))


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
    assert built.operation.strength == 0.25
