import pytest
import torch

from mmfeatjnd.hosts import adapter_of


def test_detections_have_no_single_answer(build, batch):
    model = build('detector')
    with pytest.raises(TypeError, match='MaskRCNN has no single logit tensor.*'
                       'mmfeatjnd.Annotation'):
        adapter_of(model).answer(model, *batch('detector'))


def test_hosts_without_instances_are_refused():
    from mmdet.structures import DetDataSample
    from torch import nn

    from mmfeatjnd.hosts.mmdet import _to_ground_truth
    with pytest.raises(TypeError, match='Identity predicts no instances.*'
                       'mmfeatjnd.Annotation'):
        _to_ground_truth(DetDataSample(), nn.Identity(), (8, 8), 0.3)


def test_only_confident_detections_are_objects(build, batch):
    model = build('detector')
    inputs, samples = batch('detector')
    adapter = adapter_of(model)
    scores = [
        t.gt_instances.scores
        for t in adapter.own_targets(model, inputs, samples, 0.)]
    threshold = torch.cat(scores).median().item()
    targets = adapter.own_targets(model, inputs, samples, threshold)
    for target, before in zip(targets, scores):
        kept = target.gt_instances.scores
        assert torch.equal(kept, before[before >= threshold])
        assert len(target.gt_instances.masks) == len(kept)
    assert 0 < sum(len(t.gt_instances) for t in targets) < sum(
        map(len, scores))


def test_own_targets_leave_the_users_samples_alone(build, batch):
    model = build('detector')
    inputs, samples = batch('detector')
    samples[0].set_metainfo(dict(ori_shape=(64, 64), scale_factor=(.5, .5)))
    boxes = [s.gt_instances.bboxes.clone() for s in samples]
    adapter_of(model).own_targets(model, inputs, samples, 0.)
    assert samples[0].ori_shape == (64, 64)
    for sample, before in zip(samples, boxes):
        assert torch.equal(sample.gt_instances.bboxes, before)
        assert 'pred_instances' not in sample
