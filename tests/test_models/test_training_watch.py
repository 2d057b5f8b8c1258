"""A training that does not do what it seems to do stops."""
import math

import pytest
import torch

from mmfeatjnd.models import (
    FeatJNDNeck,
    LearnedNRMSE,
    PseudoGroundTruth,
)
from mmfeatjnd.models.training_watch import INTERVAL, TrainingWatch


@pytest.fixture
def train(build, batch):
    """(model, a function that takes so many steps)."""
    model = build(
        'classifier', split='backbone.layer2', in_channels=16).train()
    inputs, samples = batch('classifier')
    optimizer = torch.optim.SGD(model.neck.estimators.parameters(), 0.01)

    def take(steps, lr=0.01):
        optimizer.param_groups[0]['lr'] = lr
        for _ in range(steps):
            losses = model.loss(inputs, samples)
            optimizer.zero_grad()
            model.parse_losses(losses)[0].backward()
            if lr is not None:
                optimizer.step()

    return model, take


def break_estimator(model, value=math.nan):
    with torch.no_grad():
        model.neck.estimators[0].convs[1].weight[0, 1, 2, 0] = value


def assert_finite(state):
    assert all(v.isfinite().all() for v in state.values())


def test_a_sound_training_goes_on(train, messages):
    model, take = train
    take(2 * INTERVAL + 1)
    assert_finite(model.state_dict())
    assert model.neck.estimators[0].trained and model.training
    assert not any(m.startswith('FeatJND:') for m in messages)


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('before', [1, 10, 60])
def test_diverged_estimators_stop_the_training(train, before, value):
    """At the next check, every 50 steps; it says when it began."""
    model, take = train
    take(before)
    break_estimator(model, value)
    first = before + 1
    check = INTERVAL * (1 + before // INTERVAL)
    take(check - first, None)
    with pytest.raises(ValueError, match=r'the estimator of level\(s\) \[0\] '
                       rf'has diverged since step {first}: .*\(step {check} '):
        take(1, None)
    # and again, whoever goes on
    with pytest.raises(ValueError, match='has diverged'):
        model.state_dict()


def test_estimators_that_begin_broken(train):
    """As those of a checkpoint: in the first step, with level and image."""
    model, take = train
    break_estimator(model)
    with pytest.raises(ValueError, match=r'made of level 0 .*\(image 0\): the '
                       'estimator has diverged'):
        take(1)


@pytest.mark.parametrize('how', ['model', 'wrapper'])
def test_diverged_estimators_are_not_saved(train, how, tmp_path):
    model, take = train
    take(3)
    assert_finite(model.state_dict())
    take(2)
    saved = model if how == 'model' else torch.nn.ModuleList([model])
    break_estimator(model)
    for _ in range(2):
        with pytest.raises(ValueError, match='has diverged.*Nothing of it'):
            torch.save(saved.state_dict(), tmp_path / 'never.pth')
    assert list(tmp_path.iterdir()) == []


def test_the_last_step_before_a_checkpoint_counts(build, batch):
    """Parameters that the optimizer broke after the last pass."""
    model = build('classifier').train()
    inputs, samples = batch('classifier')
    optimizer = torch.optim.SGD(model.neck.estimators.parameters(), 1e38)
    for _ in range(2):
        losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()
    with pytest.raises(ValueError, match=r'has diverged.*\(step 2 of this'):
        model.state_dict()


def test_a_model_that_does_not_train_is_not_watched(build):
    model = build('classifier')
    break_estimator(model)
    model.state_dict()


def test_a_step_that_mixed_precision_skips(train):
    """It is repeated with another scale: no reason to stop."""
    model, take = train
    take(3)
    weights = {k: v.clone() for k, v in model.neck.estimators.state_dict()
               .items() if k.startswith('0.convs')}
    for _ in range(4):
        break_estimator(model)
        take(1, None)
        model.neck.estimators.load_state_dict(weights, strict=False)
        take(INTERVAL // 4 + 1)
    assert_finite(model.state_dict())


# ------------------------------------------------------------ features alone
def make_neck(**kwargs):
    torch.manual_seed(0)
    return FeatJNDNeck(
        dict(type='mmfeatjnd.ConvEstimator', hidden_channels=4, **kwargs),
        in_channels=[3, 3]).train()


def take_steps(neck, watch, discrepancies, learn=True):
    for value in discrepancies:
        feature = torch.rand(2, 3, 4, 4)
        with neck.run(LearnedNRMSE()) as run:
            neck.apply_levels([feature, feature])
        watch.step(neck, run, torch.tensor(value))
        if learn:
            with torch.no_grad():
                neck.estimators[1].expand.bias += 1e-3


def test_features_that_stay_broken(messages):
    """Finite estimators whose map leaves the range of numbers."""
    neck, watch = make_neck(mode='envelope', log_range=1e4), TrainingWatch()
    take_steps(neck, watch, [0.1] * 3)
    with torch.no_grad():
        neck.estimators[1].expand.bias += 1e3
    take_steps(neck, watch, [0.1])
    watch.check(neck)  # once may be once
    take_steps(neck, watch, [0.1])
    with pytest.raises(ValueError, match='features of level 1 are NaN or '
                       r'infinite since step 4 \(now step 5'):
        watch.check(neck)


def test_an_estimator_that_does_not_learn():
    """Its learning rate is 0. One that learns is enough: that of a level
    may have nothing to learn."""
    neck, watch = make_neck(), TrainingWatch()
    take_steps(neck, watch, [0.1] * (INTERVAL - 1), learn=False)
    with pytest.raises(RuntimeError, match='in 50 steps no parameter of an '
                       'estimator has changed.*paramwise_cfg'):
        take_steps(neck, watch, [0.1], learn=False)
    neck, watch = make_neck(), TrainingWatch()
    take_steps(neck, watch, [0.1] * 2 * INTERVAL)
    # but not that of a level that nothing reads
    neck.read_levels = (0, )
    with pytest.raises(RuntimeError, match='in 150 steps no parameter'):
        take_steps(neck, watch, [0.1] * INTERVAL)


def test_a_learning_rate_of_0(train):
    model, take = train
    take(INTERVAL - 1, 0.)
    assert not model.neck.estimators[0].trained
    with pytest.raises(RuntimeError, match='no parameter of an estimator'):
        take(1, 0.)


def test_checkpoints_in_between_start_no_new_count(train):
    """Else an epoch of less than 50 steps would hide it."""
    model, take = train
    for _ in range(INTERVAL // 10 - 1):
        take(10, 0.)
        model.state_dict()
    take(9, 0.)
    with pytest.raises(RuntimeError, match='no parameter of an estimator'):
        take(1, 0.)


def test_nothing_is_ever_noticed():
    neck, watch = make_neck(), TrainingWatch()
    take_steps(neck, watch, [0.0] * (INTERVAL - 1) + [1e-9])
    take_steps(neck, watch, [0.0] * (INTERVAL - 1))
    with pytest.raises(RuntimeError, match='exactly 0 in 50 steps'):
        take_steps(neck, watch, [0.0])


def test_a_head_that_reads_nothing(train):
    model, take = train
    with torch.no_grad():
        model.head.fc.weight.zero_()
    with pytest.raises(RuntimeError, match='exactly 0 in 50 steps.*Does the '
                       'prediction depend on this split'):
        take(INTERVAL)


@pytest.mark.parametrize('values, warned', [
    ([-0.1] * INTERVAL, -0.1),
    # by the mean, not the last or the number of steps
    ([-0.01] * (INTERVAL - 1) + [5.], None),
    ([0.01] * (INTERVAL - 1) + [-5.49], -0.1),
    # what is no number counts for nothing
    ([-0.1] * (INTERVAL // 2) + [math.nan] * (INTERVAL // 2), -0.05),
])
def test_a_host_that_becomes_surer(messages, values, warned):
    neck, watch = make_neck(), TrainingWatch()
    take_steps(neck, watch, values)
    told = [m for m in messages if 'surer' in m]
    assert len(told) == (warned is not None)
    if told:
        assert f'the discrepancy was {warned:.3g} on average in 50' in told[0]
        assert 'lower score_thr' in told[0]


def test_a_detector_that_finds_nothing(build, batch):
    """Stops by itself, in training only."""
    model = build(
        'detector',
        discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth', score_thr=1.1))
    assert isinstance(model.featjnd_discrepancy, PseudoGroundTruth)
    inputs, samples = batch('detector', 1)
    with torch.no_grad():
        for _ in range(INTERVAL + 1):  # nor is anything else asked there
            model.loss(inputs, samples)
    model.train()
    with torch.no_grad(), pytest.raises(
            RuntimeError, match=r'found no object of at least score_thr=1.1'):
        for _ in range(INTERVAL):
            model.loss(inputs, samples)
