"""A resumed training is the uninterrupted one, bit for bit on a CPU.

With a fixed pipeline: random augmentation draws from generators that no
checkpoint keeps.
"""
import copy
import itertools

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmfeatjnd.registry import MODELS

LIBRARY = dict(
    classifier='mmpretrain', segmentor='mmseg', detector='mmdet')
# two Runners of one name within a second share their step
_count = itertools.count()


class Pixels(Dataset):
    """Six images with annotations, as a pipeline packs them."""

    metainfo = {}

    def __init__(self, make_batch, kind):
        self.make_batch = make_batch
        self.kind = kind

    def __len__(self):
        return 6

    def __getitem__(self, index):
        inputs, samples = self.make_batch(self.kind, 1, index)
        pixels = (inputs[0] * 40 + 128).clamp(0, 255).byte()
        return dict(inputs=pixels, data_samples=samples[0])


class Log(Hook):
    """What every step returns."""

    def __init__(self):
        self.steps = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.steps[runner.iter] = {k: float(v) for k, v in outputs.items()}


@pytest.fixture
def train(batch, tmp_path):
    """Train a config for some steps; returns what was logged, and the
    checkpoint after the last."""

    def train(model, kind, work_dir, steps, seed, resume=None, lr=1e-3):
        log = Log()
        runner = Runner(
            ConfigDict(copy.deepcopy(model)),
            str(tmp_path / work_dir),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=Pixels(batch, kind),
                sampler=dict(type='InfiniteSampler', seed=3)),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='Adam', lr=lr)),
            param_scheduler=dict(
                type='LinearLR', start_factor=0.5, by_epoch=False, end=4),
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=2)),
            custom_hooks=[log],
            randomness=dict(seed=seed),  # resuming gets another one
            load_from=resume,
            resume=resume is not None,
            experiment_name=f'resume{next(_count)}',
            log_level='ERROR',
            default_scope=LIBRARY[kind])
        runner.train()
        path = tmp_path / work_dir / f'iter_{steps}.pth'
        return log.steps, torch.load(path, weights_only=False)

    return train


def differences(one, other, path=''):
    """The paths at which two nested structures are not equal."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict):
        keys = {*one, *other}
        return [
            d for k in sorted(keys, key=str) for d in (
                differences(one[k], other[k], f'{path}.{k}')
                if k in one and k in other else [f'{path}.{k}'])
        ]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [path]
        return [d for i, pair in enumerate(zip(one, other))
                for d in differences(*pair, f'{path}.{i}')]
    return [] if one == other else [path]


def assert_resumes(train, tmp_path, model, kind):
    logged, whole = train(model, kind, 'whole', 4, seed=0)
    first, _ = train(model, kind, 'parts', 2, seed=0)
    second, parts = train(model, kind, 'parts', 4, seed=1,
                          resume=str(tmp_path / 'parts' / 'iter_2.pth'))
    assert sorted(second) == [2, 3]
    assert differences(logged, {**first, **second}) == []
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert differences(whole[part], parts[part], part) == []
    # the optimizer has a state for every parameter that is trained
    steps = {int(s['step']) for s in whole['optimizer']['state'].values()}
    assert steps == {4}
    return logged


# -------------------------------------------------------------------- FeatJND
ENVELOPE = dict(estimator=dict(mode='envelope'))
RATE = dict(magnitude_weight=0.1, tolerance=0.01, adapt=0.1)
CASES = {
    'kl': ('classifier', dict(
        discrepancy=dict(type='mmfeatjnd.PredictionDivergence')), ENVELOPE),
    'regions': ('detector', dict(
        discrepancy=dict(type='mmfeatjnd.PredictionDivergence')), ENVELOPE),
    'signed': ('classifier', dict(), dict()),
    'adapt': ('classifier', dict(
        training=dict(type='mmfeatjnd.LearnedNRMSE'),
        objective=dict(magnitude_weight=1.0, tolerance=0.01, adapt=0.1)),
              ENVELOPE),
    'named split': ('segmentor', dict(
        discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth')),
                    dict(split='backbone.layer2', in_channels=16, **ENVELOPE)),
    'pseudo ground truth': ('detector', dict(
        discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth', score_thr=0.0)),
                            dict()),
    'annotation': ('detector', dict(
        discrepancy=dict(type='mmfeatjnd.Annotation')), ENVELOPE),
    'straight-through': ('classifier', dict(
        training=dict(
            type='mmfeatjnd.QuantizationSurrogate', magnitude='rate'),
        objective=RATE), ENVELOPE),
    'noise': ('classifier', dict(
        training=dict(
            type='mmfeatjnd.QuantizationSurrogate',
            mode='noise',
            magnitude='rate'),
        objective=RATE), ENVELOPE),
}


@pytest.mark.parametrize('case', CASES)
def test_featjnd(train, tmp_path, configs, case):
    kind, fields, neck = CASES[case]
    model = configs[1](kind, **copy.deepcopy({**fields, **neck}))
    logged = assert_resumes(train, tmp_path, model, kind)
    assert len({step['jnd_discrepancy'] for step in logged.values()}) == 4


@pytest.mark.parametrize('kind', ['classifier', 'segmentor', 'detector'])
def test_distillation(train, tmp_path, configs, kind):
    model = configs[1](kind, estimator=dict(mode='sensitivity'))
    logged = assert_resumes(train, tmp_path, model, kind)
    assert len({step['jnd_error'] for step in logged.values()}) == 4


def test_every_step_of_a_distillation_draws_anew(train, configs, monkeypatch):
    """Nothing is trained, and every batch is the same."""
    model = configs[1]('classifier', estimator=dict(mode='sensitivity'))
    monkeypatch.setattr(Pixels, '__len__', lambda self: 2)
    logged, _ = train(model, 'classifier', 'draws', 4, seed=0, lr=0.0)
    # log w alone: the prediction follows its mean
    assert len({step['jnd_sensitivity'] for step in logged.values()}) == 4


@pytest.mark.parametrize('case, draws', [('kl', True), ('annotation', True),
                                         ('signed', True), ('noise', True),
                                         ('straight-through', False)])
def test_every_step_draws_anew(train, configs, batch, monkeypatch, case,
                               draws):
    """Or the above would hold where nothing is drawn. Nothing is trained, and
    every batch is the same."""
    kind, fields, neck = CASES[case]
    model = configs[1](kind, **copy.deepcopy({**fields, **neck}))
    monkeypatch.setattr(Pixels, '__len__', lambda self: 2)
    # the running statistics of the estimator move, but not on one batch
    logged, _ = train(model, kind, 'draws', 4, seed=0, lr=0.0)
    values = {step['jnd_discrepancy'] for step in logged.values()}
    assert (len(values) == 4) == draws


# -------------------------------------------------------------------- DMV-JND
NET = dict(type='mmfeatjnd.DMVJNDNet', widths=(4, 4), strides=(2, 2))


def classification_task(configs):
    return dict(
        type='mmfeatjnd.ClassificationTask',
        name='classifier',
        config=dict(
            default_scope='mmpretrain', model=configs[0]('classifier')))


def detection_task(configs):
    return dict(
        type='mmfeatjnd.DetectionTask',
        name='detector',
        score_thr=0.2,
        config=dict(default_scope='mmdet', model=configs[0]('detector')))


TASKS = {
    'classification': [classification_task],
    'detection': [detection_task],
    'both': [classification_task, detection_task],
}


@pytest.mark.parametrize('name', TASKS)
def test_dmv_jnd(train, tmp_path, configs, name):
    model = dict(
        type='mmfeatjnd.DMVJND',
        net=NET,
        tasks=[task(configs) for task in TASKS[name]])
    kind = 'detector' if name == 'detection' else 'classifier'
    logged = assert_resumes(train, tmp_path, model, kind)
    assert len({step['loss'] for step in logged.values()}) == 4


@pytest.mark.parametrize('distortion', ['dmv-jnd', 'gaussian', 'random-sign'])
def test_a_host_that_learns_from_distorted_images(
        train, tmp_path, configs, distortion):
    """Strengths and noise are drawn anew in every step."""
    jnd = dict(model=dict(
        type='mmfeatjnd.DMVJND', net=NET,
        tasks=[classification_task(configs)]))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        trained = MODELS.build(copy.deepcopy(jnd['model']))
    torch.nn.init.normal_(trained.net.decoder[-1].weight)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'jnd.pth')
    model = configs[0]('classifier')
    model['data_preprocessor'] = dict(
        type='mmfeatjnd.DMVJNDPreprocessor',
        host='mmpretrain.ClsDataPreprocessor',
        jnd=dict(config=jnd, checkpoint=str(tmp_path / 'jnd.pth')),
        distortion=distortion,
        strength=(0.5, 2.0),
        mean=[120.] * 3,
        std=[60.] * 3)
    logged = assert_resumes(train, tmp_path, model, 'classifier')
    assert len({step['loss'] for step in logged.values()}) == 4
