import pytest
import torch
from mmengine.evaluator import Evaluator

METRIC = dict(type='mmfeatjnd.RelativeAccuracy')


def predictions(measure):
    """Three images; a keeps two labels, b one."""
    return [
        measure(a=(0, 0), b=(1, 1)),
        measure(a=(1, 1), b=(1, 2)),
        measure(a=(2, 0), b=(2, 3)),
    ]


def test_by_hand(evaluate, measure):
    assert evaluate(METRIC, predictions(measure)) == pytest.approx({
        'rca/a': 200 / 3,
        'rca/b': 100 / 3,
        'rca/mean': 50.
    })


def test_accuracy_with_annotated_labels(evaluate, measure):
    metrics = evaluate(METRIC, predictions(measure), truth=[0, 2, 2])
    assert metrics == pytest.approx({
        'rca/a': 200 / 3,
        'rca/b': 100 / 3,
        'rca/mean': 50.,
        'accuracy_clean/a': 200 / 3,  # 0, 1, 2
        'accuracy/a': 100 / 3,  # 0, 1, 0
        'accuracy_clean/b': 100 / 3,  # 1, 1, 2
        'accuracy/b': 100 / 3,  # 1, 2, 3
    })


def test_several_labels_an_image_are_no_truth(evaluate, measure):
    metrics = evaluate(
        METRIC, [measure(a=(0, 0))], truth=[torch.tensor([0, 1])])
    assert metrics == {'rca/a': 100., 'rca/mean': 100.}


def test_a_task_without_labels(evaluate, sample):
    """A detector's agreement is a share."""
    rows = [
        dict(tasks=dict(boxes=dict(agreement=torch.tensor(value))))
        for value in (0.25, 1.)
    ]
    metrics = evaluate(METRIC, rows, sample=sample)
    assert metrics == {'rca/boxes': 62.5, 'rca/mean': 62.5}
    mixed = [
        dict(tasks=dict(
            boxes=dict(agreement=torch.tensor(0.5)),
            a=dict(
                agreement=torch.tensor(1.),
                label=torch.tensor(3),
                reference_label=torch.tensor(3))))
    ]
    assert evaluate(METRIC, mixed, truth=[3]) == {
        'rca/boxes': 50.,
        'rca/a': 100.,
        'rca/mean': 75.,
        'accuracy_clean/a': 100.,
        'accuracy/a': 100.
    }


def test_one_entry_an_image_and_the_prefix(measure, sample):
    """The Runner cuts the entries to the size of the data set."""
    evaluator = Evaluator(dict(METRIC, prefix='test'))
    for measured in predictions(measure):
        one = sample()
        one.set_field(measured, 'dmv_jnd')
        evaluator.process([one])
    metric, = evaluator.metrics
    assert len(metric.results) == 3
    assert all(
        isinstance(v, float) for row in metric.results for v in row.values())
    assert evaluator.evaluate(2) == {
        'test/rca/a': 100.,
        'test/rca/b': 50.,
        'test/rca/mean': 75.
    }


def test_another_model(sample):
    evaluator = Evaluator(METRIC)
    with pytest.raises(KeyError, match='RelativeAccuracy.*mmfeatjnd.DMVJND'):
        evaluator.process([sample()])
