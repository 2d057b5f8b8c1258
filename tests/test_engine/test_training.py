"""A training that does not do what it seems to do stops, in a Runner."""
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from mmfeatjnd.engine.hooks import PerturbationHook
from mmfeatjnd.models import CheckpointError
from mmfeatjnd.models.training_watch import INTERVAL


def test_a_frozen_estimator_stops_the_training(test):
    """``custom_keys`` match parts of names, and the estimators are in the
    neck."""
    paramwise = dict(custom_keys=dict(neck=dict(lr_mult=0.0)))
    with pytest.raises(RuntimeError, match='no parameter of an estimator has '
                       "changed.*custom_keys match 'neck'"):
        test(what='train', iters=INTERVAL + 5, paramwise=paramwise,
             trained=False)
    # one more key, and it is trained
    paramwise['custom_keys']['neck.estimators'] = dict(lr_mult=1.0)
    _, model = test(what='train', iters=INTERVAL + 5, paramwise=paramwise,
                    trained=False)
    assert model.neck.estimators[0].trained


def test_what_ran_and_did_not_change_is_not_trained(test):
    _, model = test(what='train', optimizer=dict(type='SGD', lr=0.0),
                    trained=False)
    estimator, = model.neck.estimators
    assert estimator.channels.updates == 3  # it ran
    assert not estimator.trained
    with pytest.raises(ValueError, match='needs a trained estimator'):
        test(PerturbationHook(), model=model, trained=None)
    test(what='train', model=model, trained=None)
    assert estimator.channels.updates == 6 and estimator.trained
    test(PerturbationHook(), model=model, trained=None)


def checkpoints(folder):
    return sorted(p.name for p in folder.rglob('*') if p.suffix == '.pth'
                  or p.name == 'last_checkpoint')


# one, where the training is looked at, too, and others
@pytest.mark.parametrize('interval', [1, 2, 3, INTERVAL])
def test_a_diverged_estimator_is_not_saved(test, tmp_path, interval):
    """The update of the very step after which it would be saved is looked
    at, too."""

    class Diverge(Hook):

        def after_train_iter(self, runner, batch_idx, **kwargs):
            if batch_idx == interval - 1:
                bias = runner.model.neck.estimators[0].expand.bias
                torch.nn.init.constant_(bias, float('inf'))

    with pytest.raises(ValueError, match=r'level\(s\) \[0\] has diverged'):
        test(Diverge(), what='train', trained=False, iters=max(interval, 3),
             checkpoint=dict(
                 type='CheckpointHook', by_epoch=False, interval=interval))
    assert checkpoints(tmp_path) == []


def test_an_estimator_that_diverges_stops_the_training(test, tmp_path):
    """Its parameters are huge after one step and NaN after the next."""
    with pytest.raises(ValueError, match='has diverged since step 2'):
        test(what='train', trained=False, iters=2 * INTERVAL,
             optimizer=dict(type='SGD', lr=1e30),
             checkpoint=dict(
                 type='CheckpointHook', by_epoch=False, interval=60))
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize('mode', ['signed', 'sensitivity'])
def test_where_nothing_is_noticed_the_training_stops(test, mode):

    class LookAtNothing(Hook):

        def before_train(self, runner):
            torch.nn.init.zeros_(runner.model.head.fc.weight)

    with pytest.raises(RuntimeError, match=f'exactly 0 in {INTERVAL} steps'):
        test(LookAtNothing(), what='train', trained=False,
             iters=INTERVAL + 5, estimator=dict(mode=mode),
             optimizer=dict(type='Adam', lr=1e-3))


@pytest.mark.parametrize('plain', [False, True])
def test_weights_of_another_host_start_no_training(test, build, configs,
                                                   tmp_path, plain):
    """An estimator was trained on a random host, exit 0."""
    host = build(configs[0]('classifier'))
    names = [*host.state_dict()]
    path, steps = str(tmp_path / 'host.pth'), []

    class Count(Hook):

        def before_train_iter(self, runner, *args, **kwargs):
            steps.append(runner.iter)

    def train(state, what='train'):
        torch.save(dict(state_dict=state), path)
        hooks = [PerturbationHook('gaussian'), Count()]
        model = build(configs[1]('classifier', plain=True)) if plain else None
        return test(*hooks, what=what, load_from=path, model=model,
                    trained=False)[1]

    whole = host.state_dict()
    segmentor = build(configs[0]('segmentor')).state_dict()
    for state in ({}, segmentor,
                  {k: whole[k] for k in names if '.layer1.' not in k},
                  {k: whole[k] for k in names if 'running_var' not in k},
                  dict(whole, **{'head.fc.bias': torch.zeros(9)})):
        for what in ('train', 'test'):
            with pytest.raises(CheckpointError, match='ImageClassifier'):
                train(state, what)
    assert steps == []
    model = train(whole, 'test')
    assert torch.equal(model.head.fc.weight, whole['head.fc.weight'])
    if not plain:  # the host's weights stay as they were loaded
        model = train(whole)
        assert steps == [0, 1, 2]
        for name, value in model.state_dict().items():
            key = name.replace('neck.neck.', 'neck.')
            if key in whole:
                assert torch.equal(value, whole[key]), name


class Nothing(BaseMetric):
    """As a detector's metric where nothing was detected."""

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        return dict()


def test_save_best_where_the_host_measures_nothing(test, tmp_path):
    """It must not take what the hook measures for the task's metric; a plain
    host only gets a warning, too."""
    best = dict(
        type='CheckpointHook', by_epoch=False, interval=3, save_best='auto')
    hook = PerturbationHook('gaussian')
    test(hook, what='train', metric=Nothing(), checkpoint=best)
    assert checkpoints(tmp_path) == ['iter_3.pth', 'last_checkpoint']
    test(hook, what='train', checkpoint=dict(best, rule='greater'))
    assert any(n.startswith('best_score') for n in checkpoints(tmp_path))
