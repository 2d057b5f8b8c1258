import pytest
import torch
from torch.nn import functional as F

from mmfeatjnd.models import (
    Annotation,
    PredictionDivergence,
    PseudoGroundTruth,
    total_loss,
)


def clean_and_changed(model, discrepancy, inputs, samples, scale=0.):
    """The discrepancy when the split is scaled by 1 + ``scale``."""

    def change(feature, level, neck):
        return feature * (1 + scale)

    neck = model.featjnd_neck
    with torch.no_grad(), model.sharing_prefix():
        reference = discrepancy.reference(model, inputs, samples)
        with neck.operating(change):
            return discrepancy(model, inputs, samples, reference)


ALL = [(kind, discrepancy) for kind, discrepancies in dict(
    classifier=(PredictionDivergence(), PredictionDivergence('ce'),
                Annotation(), PseudoGroundTruth()),
    segmentor=(PredictionDivergence(), PredictionDivergence('ce'),
               Annotation(), PseudoGroundTruth())).items()
       for discrepancy in discrepancies]


@pytest.mark.parametrize('kind, discrepancy', ALL)
def test_zero_without_a_change(build, batch, kind, discrepancy):
    model = build(kind)
    value = clean_and_changed(model, discrepancy, *batch(kind))
    assert value.shape == () and abs(value) < 1e-6
    value = clean_and_changed(model, discrepancy, *batch(kind), scale=50.)
    assert abs(value) > 1e-3


@pytest.mark.parametrize('discrepancy', [Annotation(), PseudoGroundTruth(0.)])
def test_detector(build, batch, discrepancy):
    model = build('detector')
    # the samplers of the heads draw at random: many more than there are
    for sampler in (model.rpn_head.sampler, model.roi_head.bbox_sampler):
        sampler.num = 10000
    inputs, samples = batch('detector')
    value = clean_and_changed(model, discrepancy, inputs, samples)
    assert abs(value) < 1e-5
    changed = clean_and_changed(model, discrepancy, inputs, samples, 5.)
    assert torch.isfinite(changed) and abs(changed) > 1e-3


def test_divergence_by_hand(build, batch):
    model = build('classifier')
    inputs, samples = batch('classifier')
    with torch.no_grad():
        feature = model.backbone(inputs)[0].mean((2, 3))
        clean = model.head.fc(feature)
        changed = model.head.fc(3 * feature)
    label = clean.argmax(1)
    kl = F.kl_div(changed.log_softmax(1), clean.softmax(1),
                  reduction='batchmean')
    ce = F.cross_entropy(changed, label) - F.cross_entropy(clean, label)
    for kind, expected in (('kl', kl), ('ce', ce)):
        value = clean_and_changed(model, PredictionDivergence(kind), inputs,
                                  samples, 2.)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_host_loss_by_hand(build, batch):
    """The relative rise of the host's loss, against labels of either kind."""
    model = build('classifier')
    inputs, samples = batch('classifier')
    with torch.no_grad():
        feature = model.backbone(inputs)[0].mean((2, 3))
        clean = model.head.fc(feature)
        changed = model.head.fc(3 * feature)
    annotated = torch.cat([s.gt_label for s in samples])
    for discrepancy, label in ((Annotation(), annotated),
                               (PseudoGroundTruth(), clean.argmax(1))):
        before = F.cross_entropy(clean, label)
        after = F.cross_entropy(changed, label)
        value = clean_and_changed(model, discrepancy, inputs, samples, 2.)
        torch.testing.assert_close(
            value, (after - before) / before, rtol=1e-4, atol=1e-6)


def test_pseudo_ground_truth_of_a_segmentor(build, batch):
    model = build('segmentor')
    inputs, samples = batch('segmentor')
    annotated = [s.gt_sem_seg.data.clone() for s in samples]
    targets = PseudoGroundTruth().targets(model, inputs, samples)
    with torch.no_grad():
        predicted = model.predict(inputs, samples)
    for target, result, sample, before in zip(targets, predicted, samples,
                                              annotated):
        assert target is not sample
        assert torch.equal(target.gt_sem_seg.data, result.pred_sem_seg.data)
        assert torch.equal(sample.gt_sem_seg.data, before)


def test_pseudo_ground_truth_of_a_detector(build, batch):
    """Predictions in the coordinates of the input become annotations."""
    model = build('detector')
    inputs, samples = batch('detector')
    for sample in samples:  # the file was twice as large
        sample.set_metainfo(dict(ori_shape=(64, 64), scale_factor=(.5, .5)))
    targets = PseudoGroundTruth(0.).targets(model, inputs, samples)
    assert all('scale_factor' in s.metainfo and s.scale_factor == (.5, .5)
               for s in samples)
    for target in targets:
        truth = target.gt_instances
        assert len(truth) > 0
        assert truth.bboxes.max() <= 32 and truth.bboxes.min() >= 0
        assert truth.masks.masks.shape == (len(truth), 32, 32)
        assert target.img_id in (0, 1)
    with torch.no_grad():
        loss = total_loss(model.host_loss(inputs, targets))
    assert torch.isfinite(loss)


def test_no_predictions_at_all(build, batch):
    """An image without predictions is an image without objects."""
    model = build(
        'detector',
        objective=dict(
            discrepancy=dict(
                type='mmfeatjnd.PseudoGroundTruth', score_thr=1.1)))
    inputs, samples = batch('detector')
    targets = model.featjnd_objective.discrepancy.targets(
        model, inputs, samples)
    assert [len(t.gt_instances) for t in targets] == [0, 0]
    model.train()
    losses = model.loss(inputs, samples)
    model.parse_losses(losses)[0].backward()
    for p in model.featjnd_neck.estimators.parameters():
        assert torch.isfinite(p.grad).all()


def test_masks_are_padded_to_the_input():
    from mmfeatjnd.models.discrepancies.host_loss import _bitmap_masks
    masks = _bitmap_masks(torch.ones(2, 3, 5, dtype=torch.bool), (4, 8))
    assert masks.masks.shape == (2, 4, 8)
    assert masks.masks.sum() == 2 * 15
    empty = _bitmap_masks(torch.ones(0, 3, 5, dtype=torch.bool), (4, 8))
    assert empty.masks.shape == (0, 4, 8)


def test_total_loss_is_what_mmengine_sums(build):
    losses = dict(
        loss_a=torch.tensor([1., 3.]),
        b_loss=[torch.tensor(2.), torch.tensor([4., 6.])],
        acc=torch.tensor(100.))
    assert total_loss(losses) == 2 + 2 + 5
    assert build('classifier').parse_losses(losses)[0] == 9


def test_errors(build, batch):
    with pytest.raises(ValueError, match="'kl' or 'ce', but got 'l2'"):
        PredictionDivergence('l2')
    detector = build('detector')
    with pytest.raises(TypeError, match='single logit.*PseudoGroundTruth'):
        PredictionDivergence().reference(detector, *batch('detector'))
    classifier = build('classifier')
    inputs, _ = batch('classifier')
    with pytest.raises(ValueError, match='Annotation needs data samples'):
        Annotation().reference(classifier, inputs, None)


def test_a_host_without_boxes_gets_those_of_its_masks(build):
    """As SOLO, which predicts masks and leaves every box at zero."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 1:7] = True
    masks[1, 6, 6] = True  # too small to be an object
    result = DetDataSample(metainfo=dict(img_shape=(8, 8)))
    result.pred_instances = InstanceData(
        bboxes=torch.zeros(2, 4),
        labels=torch.tensor([1, 0]),
        scores=torch.ones(2),
        masks=masks)
    truth = PseudoGroundTruth()._to_ground_truth(result, None,
                                                 (8, 8)).gt_instances
    assert truth.bboxes.tolist() == [[1, 2, 7, 5]]
    assert truth.labels.tolist() == [1]
    assert truth.masks.masks.sum() == 18
