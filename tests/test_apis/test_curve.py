"""Measuring curves on a tiny classifier with random weights."""
import copy
import math

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import METRICS

from mmfeatjnd.apis import build_model, measure_curve, save_estimator
from mmfeatjnd.apis.building import build_runner
from mmfeatjnd.apis.curve import OperationTest
from mmfeatjnd.engine.hooks import PerturbationHook
from mmfeatjnd.models import CheckpointError, Perturbation, Quantization


class MeanScore(BaseMetric):
    """A number that moves with any change of the logits, and metrics that
    are no number."""

    def __init__(self, extra=()):
        super().__init__()
        self.extra = dict(extra)

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            score = sample['pred_score'].double()
            self.results.append(
                float((score * torch.arange(1., 1 + len(score))).sum()))

    def compute_metrics(self, results):
        mean = sum((i + 1) * r for i, r in enumerate(results)) / len(results)
        return dict(score=mean, **self.extra)


@pytest.fixture(autouse=True, scope='module')
def _registered():
    METRICS.register_module(name='TestMeanScore', module=MeanScore)
    yield
    del METRICS.module_dict['TestMeanScore']


@pytest.fixture
def host(small_classifier, tmp_path):
    """A config, and a checkpoint of host and estimator, both made anew."""
    cfg, _ = small_classifier
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.test_evaluator = dict(type='mmengine.TestMeanScore')

    def make(seed=0, trained=True, plain=False, mode='signed'):
        torch.manual_seed(seed)
        cfg.model.neck.estimator.mode = mode
        if plain:
            cfg.model.type = cfg.model.pop('host')
            cfg.model.pop('objective', None)
        model = build_model(cfg.copy()).eval()
        for name, p in model.named_parameters():
            if 'estimators' not in name:
                torch.nn.init.normal_(p, std=1 / max(p[0].numel(), 4)**0.5)
        model.neck.estimators[0].initial.fill_(trained)
        return cfg, model

    return make


def save(state, path):
    torch.save(dict(state_dict=state, meta=dict()), path)
    return str(path)


def as_tested(cfg, checkpoint):
    """As tools/test.py measures it."""
    cfg = copy.deepcopy(cfg)
    cfg.load_from = checkpoint
    return build_runner(cfg).test()


# -------------------------------------------------- hooks of the host's config
def ema_checkpoint(model, path):
    """As EMAHook saves it: the averaged weights are the state."""
    averaged = {k: v.clone() for k, v in model.state_dict().items()}
    raw = {
        k: v * 1.5 if k.endswith('fc.weight') else v
        for k, v in averaged.items()
    }
    ema = {f'module.{k}': v for k, v in raw.items()}
    torch.save(
        dict(
            state_dict=averaged,
            ema_state_dict=dict(ema, steps=torch.tensor(5)),
            meta=dict()), path)
    return str(path)


class Counting(Hook):
    """Sees every point of a test but its iterations."""

    seen = []

    def before_run(self, runner):
        self.seen.append('before_run')

    def before_test_epoch(self, runner):
        self.seen.append('before_test_epoch')

    def after_test_epoch(self, runner, metrics=None):
        self.seen.append(f'after_test_epoch {sorted(metrics)}')

    def after_run(self, runner):
        self.seen.append('after_run')


@pytest.mark.parametrize('plain', [False, True])
@pytest.mark.parametrize('hooks', [
    [dict(type='EMAHook')],
    [dict(type=EMAHook, momentum=0.1)],
    [dict(type='mmengine.EMAHook', ema_type='StochasticWeightAverage')],
    None,
    [],
], ids=['name', 'class', 'scope', 'None', 'empty'])
def test_a_curve_measures_what_a_test_measures(host, tmp_path, hooks, plain):
    """Before, EMA had no model and None was no list."""
    cfg, model = host(plain=plain)
    checkpoint = ema_checkpoint(model, tmp_path / 'host.pth')
    cfg.custom_hooks = hooks
    expected = as_tested(cfg, checkpoint)['score']
    cfg.custom_hooks = [
        *(hooks or []),
        # what would operate twice is left out, however it is named
        dict(type='mmfeatjnd.PerturbationHook', distortion='gaussian'),
        dict(type=PerturbationHook, distortion='gaussian'),
    ] if hooks is not None else None
    rows = measure_curve(cfg, checkpoint, ['gaussian'], [0.5])
    assert [r['distortion'] for r in rows] == ['clean', 'gaussian']
    assert rows[0]['metrics'] == dict(score=pytest.approx(expected, abs=1e-9))
    cfg.custom_hooks = [
        *(hooks or []),
        dict(type=PerturbationHook, distortion='gaussian', nrmse=0.5)
    ]
    found = as_tested(cfg, checkpoint)
    assert rows[1]['metrics']['score'] == pytest.approx(
        found['score'], abs=1e-6)
    assert rows[1]['nrmse_measured'] == pytest.approx(found['jnd/nrmse'])
    assert abs(found['score'] - expected) > 1e-3


@pytest.mark.parametrize('plain', [False, True])
def test_ema_with_a_checkpoint_of_the_host_alone(host, tmp_path, plain):
    """Which lacks the estimators that the average has, too."""
    cfg, model = host(plain=plain)
    cfg.custom_hooks = [dict(type='EMAHook')]
    save_estimator(model, tmp_path / 'estimator.safetensors')
    whole = save(model.state_dict(), tmp_path / 'whole.pth')
    alone = save(
        {k: v for k, v in model.state_dict().items()
         if not k.startswith(('neck.estimators', 'featjnd_'))},
        tmp_path / 'alone.pth')
    expected = measure_curve(cfg, whole, ['featjnd'], [0.5])
    rows = measure_curve(cfg, alone, ['featjnd'], [0.5], estimators=[
        str(tmp_path / 'estimator.safetensors')])
    assert rows == expected
    assert rows[0]['metrics'] != rows[1]['metrics']


def test_hooks_see_one_test(host, tmp_path):
    cfg, model = host()
    cfg.custom_hooks = [dict(type=Counting)]
    Counting.seen.clear()
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    measure_curve(cfg, checkpoint, ['gaussian'], [0.5, 1.0])
    assert Counting.seen == [
        'before_run', 'before_test_epoch', "after_test_epoch ['score']",
        'after_run'
    ]


# --------------------------------------------------------------------- metrics
def test_metrics_that_are_no_number(host, tmp_path):
    """They are left out, and an undefined precision is no precision of -1."""
    cfg, model = host()
    cfg.test_evaluator.extra = dict(
        confusion=torch.eye(2).tolist(), per_class=[0.5, 0.25], name='x',
        bbox_mAP=-1.0, temperature=-1.0, tensor=torch.tensor(3).item(),
        missing=None)
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    for row in measure_curve(cfg, checkpoint, ['gaussian'], [0.5]):
        metrics = dict(row['metrics'])
        assert math.isnan(metrics.pop('bbox_mAP'))
        assert math.isnan(metrics.pop('missing'))
        assert metrics.pop('score') > 0
        assert metrics == dict(temperature=-1.0, tensor=3.0)


def test_a_metric_that_is_missing_in_a_row(host, tmp_path, monkeypatch):
    """As a detector's where nothing is detected any more."""
    cfg, model = host()
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    compute, calls = MeanScore.compute_metrics, []

    def sometimes(self, results):
        calls.append(len(results))
        return compute(self, results) if len(calls) != 2 else dict()

    monkeypatch.setattr(MeanScore, 'compute_metrics', sometimes)
    rows = measure_curve(cfg, checkpoint, ['gaussian'], [0.5, 1.0])
    assert [list(r['metrics']) for r in rows] == [['score'], [], ['score']]
    assert rows[1]['nrmse_measured'] == pytest.approx(0.5, rel=1e-4)


# ------------------------------------------------------------------ divergence
@pytest.mark.parametrize('distortion', ['featjnd', 'permuted'])
def test_a_diverged_estimator_makes_no_curve(host, tmp_path, distortion):
    """It made an NRMSE of 0.0 and an accuracy of 0."""
    cfg, model = host()
    torch.nn.init.constant_(
        model.neck.estimators[0].expand.bias, float('nan'))
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    with pytest.raises(ValueError, match='what the operation made of level 0 '
                       r"at split='backbone.layer2' \(image .*\): the "
                       'estimator has diverged'):
        measure_curve(cfg, checkpoint, ['gaussian', distortion], [0.5])
    with pytest.raises(ValueError, match='NaN or infinite values in .*'
                       'expand.bias.* has diverged'):
        save_estimator(model, tmp_path / 'estimator.safetensors')


def test_a_broken_host_makes_no_curve(host, tmp_path):
    cfg, model = host()
    torch.nn.init.constant_(model.backbone.conv1.weight, float('inf'))
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    with pytest.raises(ValueError, match='the host is broken before any'):
        measure_curve(cfg, checkpoint, ['gaussian'], [0.5])


# ------------------------------------------------------------------ what lacks
def test_weights_that_the_checkpoint_lacks(host, tmp_path):
    """A curve was drawn on a random host, exit 0."""
    cfg, model = host()
    state = model.state_dict()
    save_estimator(model, tmp_path / 'estimator.safetensors')
    for given, message in (
            ({}, 'lacks .* of .* weights of FeatJNDImageClassifier'),
            ({k: v for k, v in state.items() if '.layer1.' not in k},
             "lacks .*e.g. 'backbone.layer1"),
            ({k: v for k, v in state.items() if 'running_mean' not in k},
             'lacks .*running_mean'),
            (dict(state, **{'head.fc.weight': torch.zeros(9, 64)}),
             r"other shapes, e.g. 'head.fc.weight': \(9, 64\)")):
        checkpoint = save(given, tmp_path / 'bad.pth')
        for run in (lambda: measure_curve(cfg, checkpoint, ['gaussian'], [1]),
                    lambda: as_tested(cfg, checkpoint)):
            with pytest.raises(CheckpointError, match=message):
                run()
    with pytest.raises((CheckpointError, ValueError), match='lacks|estimator'):
        measure_curve(
            cfg, str(tmp_path / 'estimator.safetensors'), ['gaussian'], [1.0])
    with pytest.raises(FileNotFoundError, match='No checkpoint at'):
        measure_curve(cfg, str(tmp_path / 'no.pth'), ['gaussian'], [1.0])


def test_every_pass_checks_its_own_operations(host, tmp_path):
    """An untrained estimator in the second of several passes, too."""
    cfg, model = host(trained=False)
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    bench = OperationTest(cfg, checkpoint)
    operations = [(0, Perturbation(d, 0.5)) for d in ('gaussian', 'featjnd')]
    with pytest.raises(ValueError, match="distortion='featjnd' needs a "
                       'trained estimator'):
        bench.measure(operations, settings_per_pass=1)


def test_a_batch_without_the_gradient(host, tmp_path):
    """What was not named beforehand has no gradient to work with."""
    cfg, model = host()
    bench = OperationTest(cfg, save(model.state_dict(), tmp_path / 'host.pth'))
    batch = next(iter(bench.dataloader()))
    for operation in (Perturbation('gradient-sensitivity', 0.5),
                      Quantization('gradient')):
        with bench.batch(batch, [operation]) as (clean, predict):
            outputs, run = predict(operation)
        assert len(outputs) == len(clean) == 4
        assert run.measured['nrmse'].shape == (4, )
        with bench.batch(batch, [Perturbation('gaussian', 1.0)]) as (
                _, predict):
            with pytest.raises(ValueError, match=f'{operation.name}.*needs '
                               "the task's gradient"):
                predict(operation)
        assert bench.neck.change is None and not bench.neck.attached
        assert not any('forward' in vars(m) for m in bench.model.modules())


def test_passes_do_not_change_the_rows(host, tmp_path):
    cfg, model = host()
    checkpoint = save(model.state_dict(), tmp_path / 'host.pth')
    operations = [(0, Perturbation(d, s)) for s in (0.5, 1.0)
                  for d in ('gaussian', 'featjnd', 'gradient-sensitivity')]
    one, several = (OperationTest(cfg, checkpoint).measure(operations, n)
                    for n in (24, 2))
    assert one == several and len(one) == 7
