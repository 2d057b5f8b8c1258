import sys

import pytest
import torch

from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.registry import MODELS


def answer(model, inputs, samples=None):
    return adapter_of(model).answer(model, inputs, samples)


def with_head(build, configs, **head):
    cfg = configs[1]('classifier')
    cfg['head'] = dict(dict(num_classes=4, in_channels=32), **head)
    return build(cfg)


def test_a_softmax(build, batch):
    model = build('classifier')
    inputs, samples = batch('classifier')
    with torch.no_grad():
        got = answer(model, inputs, samples)
        results = model.predict(inputs, [s.clone() for s in samples])
    assert got.kind == 'categorical' and got.logits.shape == (2, 4)
    assert got.decisions().tolist() == [r.pred_label.item() for r in results]
    for row, result in zip(got.logits.softmax(1), results):
        torch.testing.assert_close(row, result.pred_score)


@pytest.mark.parametrize('how, threshold', [
    (dict(thr=0.45), 0.45), (dict(thr=0.0), 0.0), (dict(thr=0.95), 0.95),
    (dict(topk=2), 0.5), (dict(topk=1), 0.5), (dict(thr=0.45, topk=1), 0.45),
    (dict(), 0.5)])
@pytest.mark.parametrize('kind', ['MultiLabelLinearClsHead', 'CSRAClsHead'])
def test_several_labels(build, batch, configs, how, threshold, kind):
    """A sigmoid on every logit; the truth of the host's loss is what it
    says."""
    extra = dict(num_heads=1, lam=0.1) if kind == 'CSRAClsHead' else {}
    model = with_head(build, configs, type=kind, **extra, **how)
    if extra:
        model.neck.neck = None  # it looks at the whole map
    inputs, samples = batch('classifier')
    adapter = adapter_of(model)
    with torch.no_grad():
        got = adapter.answer(model, inputs, samples)
        targets = adapter.own_targets(model, inputs, samples, 0.)
        results = model.predict(inputs, [s.clone() for s in samples])
    assert got.kind == 'binary' and got.threshold == threshold
    for row, target, result in zip(got.logits, targets, results):
        torch.testing.assert_close(row.sigmoid(), result.pred_score)
        expected = torch.zeros(4)
        expected[result.pred_label] = 1
        assert torch.equal(target.gt_score, expected)
    with torch.no_grad():
        assert adapter.loss(model, inputs, targets).isfinite()


def test_own_targets_leave_the_users_samples_alone(build, batch):
    model = build('classifier')
    inputs, samples = batch('classifier')
    labels = [s.gt_label.clone() for s in samples]
    adapter = adapter_of(model)
    targets = adapter.own_targets(model, inputs, samples, 0.)
    decisions = answer(model, inputs).decisions()
    for target, sample, label, own in zip(targets, samples, labels,
                                          decisions):
        assert target is not sample and torch.equal(sample.gt_label, label)
        assert target.gt_label.item() == own and target.img_id == sample.img_id
    # nor are any needed
    bare = adapter.own_targets(model, inputs, None, 0.)
    assert [t.gt_label.item() for t in bare] == decisions.tolist()


@pytest.mark.parametrize('head, message', [
    (dict(type='LinearRegressionHead'),
     'LinearRegressionHead, predicts no classes.*mmfeatjnd.Annotation'),
    (dict(type='LinearClsHead', num_classes=1), 'a softmax over one class'),
])
def test_hosts_without_classes_are_refused(build, batch, configs, head,
                                           message):
    if MODELS.get(f'mmpretrain.{head["type"]}') is None:
        pytest.skip('the original line of host libraries has no such head')
    model = with_head(build, configs, **head)
    with pytest.raises(TypeError, match=message):
        answer(model, *batch('classifier'))


def test_no_host_library_is_needed_beyond_what_every_line_has(
        build, batch, monkeypatch):
    """The original line of MMPretrain has no heads for regression."""
    monkeypatch.setitem(sys.modules, 'mmpretrain.models.heads.regression_head',
                        None)
    assert answer(build('classifier'), *batch('classifier')).kind


def test_heads_of_other_tasks_are_refused(build, batch, configs):
    cfg = configs[1]('classifier')
    head = dict(type='LinearClsHead', num_classes=4, in_channels=32)
    cfg['head'] = dict(type='MultiTaskHead', task_heads=dict(a=head, b=head))
    with pytest.raises(TypeError, match='MultiTaskHead, predicts no classes'):
        answer(build(cfg), *batch('classifier'))
