import pytest
import torch
from torch.nn import functional as F

from mmfeatjnd.hosts import adapter_of, sharing_prefix
from mmfeatjnd.hosts.base import total_loss
from mmfeatjnd.models import (
    Annotation,
    PredictionDivergence,
    PrefixReplay,
    PseudoGroundTruth,
)
from mmfeatjnd.models.discrepancies.host_loss import PATIENCE


def clean_and_changed(model, discrepancy, inputs, samples, scale=0., seed=0):
    """The discrepancy when the split is scaled by 1 + ``scale``."""

    def change(feature, level):
        return feature * (1 + scale)

    neck = model.featjnd_neck
    with torch.no_grad(), sharing_prefix(model, PrefixReplay(neck)):
        reference = discrepancy.reference(model, inputs, samples, seed)
        with neck.changing(change):
            return discrepancy(model, inputs, samples, reference)


ALL = [(kind, discrepancy) for kind, discrepancies in dict(
    classifier=(PredictionDivergence(), Annotation(), PseudoGroundTruth()),
    segmentor=(PredictionDivergence(), Annotation(),
               PseudoGroundTruth())).items()
       for discrepancy in discrepancies]


@pytest.mark.parametrize('kind, discrepancy', ALL)
def test_zero_without_a_change(build, batch, kind, discrepancy):
    model = build(kind)
    value = clean_and_changed(model, discrepancy, *batch(kind))
    assert value.shape == () and abs(value) < 1e-6
    value = clean_and_changed(model, discrepancy, *batch(kind), scale=50.)
    assert abs(value) > 1e-3


@pytest.mark.parametrize('neck', [
    dict(),
    dict(split='c2', in_channels=[16] * 4),
    dict(split='roi_head.bbox_roi_extractor', in_channels=16),
    dict(split='roi_head.bbox_head.shared_fcs.1', in_channels=32),
    dict(split='roi_head.mask_head.convs', in_channels=[16])])
@pytest.mark.parametrize('discrepancy', [
    PredictionDivergence(), Annotation(), PseudoGroundTruth(0.)])
def test_detector(build, batch, discrepancy, neck):
    """Both passes of the samplers of the heads draw alike, and what a loss
    sees is not what a prediction saw."""
    model = build('detector', **neck)
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
    kl = F.kl_div(changed.log_softmax(1), clean.softmax(1),
                  reduction='batchmean')
    value = clean_and_changed(model, PredictionDivergence(), inputs, samples,
                              2.)
    torch.testing.assert_close(value, kl, rtol=1e-4, atol=1e-6)


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
        loss = adapter_of(model).loss(model, inputs, targets)
    assert torch.isfinite(loss)


def test_no_predictions_at_all(build, batch):
    """An image without predictions is an image without objects."""
    model = build(
        'detector',
        discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth', score_thr=1.1))
    inputs, samples = batch('detector')
    targets = model.featjnd_discrepancy.targets(
        model, inputs, samples)
    assert [len(t.gt_instances) for t in targets] == [0, 0]
    model.train()
    losses = model.loss(inputs, samples)
    model.parse_losses(losses)[0].backward()
    for p in model.featjnd_neck.estimators.parameters():
        assert torch.isfinite(p.grad).all()


def test_masks_are_padded_to_the_input():
    from mmfeatjnd.hosts.mmdet import _bitmap_masks
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
    detector = build('detector')
    detector.roi_head.mask_head.__class__ = type(  # nobody knows what it says
        'NewMaskHead', (type(detector.roi_head.mask_head), ),
        dict(__module__='mmdet.new'))
    with pytest.raises(TypeError, match='NewMaskHead mean.*PseudoGroundTruth'):
        PredictionDivergence().reference(detector, *batch('detector'))
    classifier = build('classifier')
    inputs, _ = batch('classifier')
    with pytest.raises(ValueError, match='Annotation needs data samples'):
        Annotation().reference(classifier, inputs, None)


def test_a_host_without_boxes_gets_those_of_its_masks(build):
    """As SOLO, which predicts masks and leaves every box at zero."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from mmfeatjnd.hosts.mmdet import _to_ground_truth
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 1:7] = True
    masks[1, 6, 6] = True  # too small to be an object
    result = DetDataSample(metainfo=dict(img_shape=(8, 8)))
    result.pred_instances = InstanceData(
        bboxes=torch.zeros(2, 4),
        labels=torch.tensor([1, 0]),
        scores=torch.ones(2),
        masks=masks)
    truth = _to_ground_truth(result, None, (8, 8), 0.3).gt_instances
    assert truth.bboxes.tolist() == [[1, 2, 7, 5]]
    assert truth.labels.tolist() == [1]
    assert truth.masks.masks.sum() == 18


def test_draws_of_the_host_are_those_of_the_seed(build, batch):
    model = build('detector')
    # of what is drawn from there is more than is drawn
    model.rpn_head.sampler.num = model.roi_head.bbox_sampler.num = 6
    inputs, samples = batch('detector')
    state = torch.get_rng_state()
    with torch.no_grad():
        a, b, c = (Annotation().reference(model, inputs, samples, seed)
                   for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert a.loss == b.loss != c.loss and a.seed == 3
    # the perturbed pass takes that of the reference
    value = clean_and_changed(model, Annotation(), inputs, samples, seed=2**62)
    assert value == 0


# ------------------------------------------------------------- sigmoid hosts
def sigmoid_host(build, configs, kind):
    """A host that says yes or no to each of its logits."""
    cfg = configs[1](kind)
    if kind == 'classifier':
        cfg['head'] = dict(
            type='MultiLabelLinearClsHead', num_classes=4, in_channels=32,
            thr=0.45)
    else:
        cfg['decode_head'].update(
            num_classes=2,
            out_channels=1,
            threshold=0.45,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    model = build(cfg)
    if kind == 'segmentor':  # it begins with logits of almost 0
        torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


def sigmoid_batch(batch, kind):
    inputs, samples = batch(kind)
    for i, sample in enumerate(samples):
        if kind == 'classifier':
            sample.set_gt_score(torch.tensor([1., 0, i, 1]))
        else:
            sample.gt_sem_seg.data.clamp_(max=1)
    return inputs, samples


@pytest.mark.parametrize('kind', ['classifier', 'segmentor'])
@pytest.mark.parametrize('discrepancy', [
    PredictionDivergence(), Annotation(), PseudoGroundTruth()])
def test_sigmoid_hosts_notice_something(build, batch, configs, kind,
                                        discrepancy):
    """A softmax over one class would be 1, whatever happens."""
    model = sigmoid_host(build, configs, kind)
    inputs, samples = sigmoid_batch(batch, kind)
    value = clean_and_changed(model, discrepancy, inputs, samples)
    assert value.shape == () and abs(value) < 1e-6
    value = clean_and_changed(model, discrepancy, inputs, samples, scale=50.)
    assert abs(value) > 1e-3


def test_divergence_of_sigmoid_hosts_by_hand(build, batch, configs):
    model = sigmoid_host(build, configs, 'classifier')
    inputs, samples = sigmoid_batch(batch, 'classifier')
    with torch.no_grad():
        feature = model.backbone(inputs)[0].mean((2, 3))
        clean, changed = model.head.fc(feature), model.head.fc(3 * feature)
    p, q = clean.sigmoid(), changed.sigmoid()
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1)
    yes = p > 0.45
    assert (yes != (p > 0.5)).any()  # the host's own threshold counts

    def cross(q):
        return -torch.where(yes, q, 1 - q).log().sum(1).mean()

    value = clean_and_changed(model, PredictionDivergence(), inputs, samples,
                              2.)
    torch.testing.assert_close(value, kl.mean(), rtol=1e-4, atol=1e-6)
    # of labels that the host itself gave, its loss is that cross entropy
    value = clean_and_changed(model, PseudoGroundTruth(), inputs, samples, 2.)
    torch.testing.assert_close(
        value, (cross(q) - cross(p)) / cross(p), rtol=1e-4, atol=1e-6)


def test_divergence_of_a_binary_segmentor_by_hand(build, batch, configs):
    model = sigmoid_host(build, configs, 'segmentor')
    inputs, samples = sigmoid_batch(batch, 'segmentor')
    with torch.no_grad():
        features = model.backbone(inputs)
        logits = model.decode_head.forward(features)
        changed = model.decode_head.forward([3 * x for x in features])
    assert logits.shape[1] == 1
    p, q = logits.sigmoid(), changed.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    value = clean_and_changed(model, PredictionDivergence(), inputs, samples,
                              2.)
    # nats of an image, not of a pixel
    torch.testing.assert_close(
        value, expected.sum() / len(inputs), rtol=1e-4, atol=1e-7)
    # what it decides is what its own prediction says
    targets = PseudoGroundTruth().targets(model, inputs, samples)
    with torch.no_grad():
        results = model.predict(inputs, samples)
    for target, result in zip(targets, results):
        assert torch.equal(target.gt_sem_seg.data, result.pred_sem_seg.data)


@pytest.mark.parametrize('kind', ['classifier', 'segmentor'])
def test_estimators_of_sigmoid_hosts_learn(build, batch, configs, kind):
    model = sigmoid_host(build, configs, kind).train()
    losses = model.loss(*sigmoid_batch(batch, kind))
    assert losses['jnd_discrepancy'] > 0
    model.parse_losses(losses)[0].backward()
    last = model.neck.estimators[-1]
    assert all(p.grad.abs().sum() > 0 for p in last.parameters())


# ------------------------------------------------------------------ no object
def test_training_stops_where_nothing_is_found(build, batch):
    model = build('detector')
    inputs, samples = batch('detector')
    discrepancy = PseudoGroundTruth(1.1)

    def step(times):
        for _ in range(times):
            discrepancy.targets(model, inputs, samples)

    discrepancy.eval()
    step(PATIENCE + 1)  # nobody waits for anything
    discrepancy.train()
    step(PATIENCE - 1)
    discrepancy.score_thr = 0.  # one object is enough to go on
    step(1)
    discrepancy.score_thr = 1.1
    step(PATIENCE - 1)
    with pytest.raises(RuntimeError, match='MaskRCNN has found no object of '
                       r'at least score_thr=1.1 in 50 steps.*Annotation'):
        step(1)


def test_hosts_without_objects_go_on(build, batch):
    discrepancy = PseudoGroundTruth().train()
    model = build('classifier')
    for _ in range(PATIENCE + 1):
        discrepancy.targets(model, *batch('classifier', 1))
