"""Testing and training a tiny classifier in a Runner."""
import itertools

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner
from torch.utils.data import Dataset

NUM = 6  # images
# two Runners of one name within a second share their step
_count = itertools.count()


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
    """Test, validate or train; returns the metrics and the model.

    ``metric`` takes the place of the score's, ``iters``, ``optimizer``,
    ``paramwise``, ``checkpoint`` and ``load_from`` are of the training; all
    else is of the neck.
    """

    def run(*hooks, size=2, what='test', tta=False, broken=False, model=None,
            trained=True, metric=None, iters=3, optimizer=None,
            paramwise=None, checkpoint=None, load_from=None, **neck):
        from mmpretrain.models import AverageClsScoreTTA
        model = model or build('classifier', **neck)
        for estimator in getattr(model.neck, 'estimators', ()):
            if trained is not None:
                estimator.initial.fill_(trained)
        dataloader = dict(
            batch_size=size,
            num_workers=0,
            dataset=Images(batch, broken, 2 if tta else 1),
            sampler=dict(type='DefaultSampler', shuffle=False))
        kind = 'val' if what == 'train' else what
        parts = {
            f'{kind}_dataloader': dataloader,
            f'{kind}_evaluator': Evaluator(metric or MeanScore()),
            f'{kind}_cfg': dict(),
        }
        if what == 'train':
            parts.update(
                randomness=dict(seed=0),
                train_dataloader=dict(
                    dataloader, sampler=dict(type='InfiniteSampler')),
                train_cfg=dict(
                    type='IterBasedTrainLoop',
                    max_iters=iters,
                    val_interval=1 if iters < 10 else iters + 1),
                optim_wrapper=dict(
                    type='OptimWrapper',
                    optimizer=optimizer or dict(type='SGD', lr=0.1),
                    paramwise_cfg=paramwise))
        runner = Runner(
            AverageClsScoreTTA(model) if tta else model,
            str(tmp_path),
            custom_hooks=list(hooks),
            default_hooks=dict(checkpoint=checkpoint, sampler_seed=None),
            experiment_name=f'run{next(_count)}',
            load_from=load_from,
            log_level='ERROR',
            default_scope='mmpretrain',
            **parts)
        return getattr(runner, what)(), model

    return run
