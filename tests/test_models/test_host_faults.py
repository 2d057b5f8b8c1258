"""Hosts of other kinds, whose faults once went through without a word."""
import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

from mmfeatjnd.functional import Distribution, image_keys, score
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models import Perturbation, Quantization, find_neck
from mmfeatjnd.models.forward_runs import every_forward
from mmfeatjnd.models.run import columns_of, image_rows
from mmfeatjnd.models.sensitivity import task_gradients


def measure(model, operation, inputs, samples):
    """Predictions and the run; the samples are left as they are."""
    with torch.no_grad(), every_forward(model.neck, operation) as runs:
        results = model(
            inputs, [s.clone() for s in samples], mode='predict')
    return results, runs[0]


def redraw(model, seed=1):
    """Weights of the host that make its predictions differ."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if 'estimators' not in name:
            nn.init.normal_(
                p, std=1.5 / max(p[0].numel(), 4)**0.5, generator=generator)
    return model


# ------------------------------------- hosts that decide by a sigmoid (row 1)
def binary_segmentor(featjnd_cfg, mode, **fields):
    """One output channel: a pixel is the object or it is not."""
    cfg = featjnd_cfg('segmentor', estimator=dict(mode=mode), **fields)
    cfg['backbone'].update(strides=(1, 2, 1, 1))  # 4 x 4 tokens
    cfg['decode_head'].update(
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
    return cfg


def multi_label_classifier(featjnd_cfg, mode, **fields):
    """Any number of four labels an image."""
    cfg = featjnd_cfg('classifier', estimator=dict(mode=mode), **fields)
    cfg['head'] = dict(
        type='MultiLabelLinearClsHead', num_classes=4, in_channels=32, thr=0.5)
    return cfg


SIGMOID = dict(segmentor=binary_segmentor, classifier=multi_label_classifier)
DISCREPANCIES = dict(
    kl=dict(type='mmfeatjnd.PredictionDivergence'),
    pseudo=dict(type='mmfeatjnd.PseudoGroundTruth'),
    annotation=dict(type='mmfeatjnd.Annotation'))


@pytest.fixture
def sigmoid_host(build, configs, batch):
    """A host that says yes as often as no, and a batch."""

    def make(kind, mode='signed', **fields):
        model = redraw(build(SIGMOID[kind](configs[1], mode, **fields)))
        inputs, samples = batch(kind, 4)
        if kind == 'segmentor':
            last = model.decode_head.conv_seg
            for sample in samples:
                sample.gt_sem_seg.data = sample.gt_sem_seg.data % 2
        else:
            last = model.head.fc
            for i, sample in enumerate(samples):
                sample.set_gt_score(torch.eye(4)[i])
        with torch.no_grad():
            logits = model(inputs, samples, mode='tensor')
            # no logit lies at 0 itself
            last.bias -= 1e-3 + logits.transpose(0, 1).flatten(1).median(
                1).values
        return model, inputs, samples

    return make


@pytest.mark.parametrize('kind', SIGMOID)
@pytest.mark.parametrize('name', DISCREPANCIES)
def test_the_discrepancy_of_a_sigmoid(sigmoid_host, kind, name):
    """0 without a change, positive with one, and training brings it down."""
    model, inputs, samples = sigmoid_host(
        kind, discrepancy=DISCREPANCIES[name],
        training=dict(type='mmfeatjnd.DrawnNRMSE', nrmse=(4.0, 4.0)),
        objective=dict(magnitude_weight=0.0))
    discrepancy = model.featjnd_discrepancy.eval()
    with torch.no_grad():
        reference = discrepancy.reference(model, inputs, samples)
        assert discrepancy(model, inputs, samples, reference) == 0
        # an image turned round
        with model.neck.run(lambda x, level, visit: -x, samples):
            changed = discrepancy(model, inputs, samples, reference)
    assert changed > 0.01

    model.train()
    optimizer = torch.optim.Adam(model.neck.estimators.parameters(), 1e-2)
    seen = []
    for _ in range(20):
        losses = model.loss(inputs, samples)
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        seen.append(losses['jnd_discrepancy'].item())
    assert seen[0] > 0.05
    assert sum(seen[-3:]) / 3 < 0.5 * seen[0]
    assert model.neck.active_estimators()[0].trained


@pytest.mark.parametrize('kind', SIGMOID)
def test_pseudo_ground_truth_of_a_sigmoid_has_both_answers(
        sigmoid_host, kind):
    model, inputs, samples = sigmoid_host(kind)
    before = copy.deepcopy(samples)
    with torch.no_grad():
        targets = adapter_of(model).own_targets(model, inputs, samples, 0.3)
        results = model(
            inputs, [s.clone() for s in samples], mode='predict')
    if kind == 'segmentor':
        found, expected = ([s.get(k).data for s in x] for x, k in (
            (targets, 'gt_sem_seg'), (results, 'pred_sem_seg')))
        assert torch.equal(samples[0].gt_sem_seg.data,
                           before[0].gt_sem_seg.data)
    else:
        found = [s.gt_score for s in targets]
        # the labels above the threshold
        expected = [
            torch.zeros(4).index_fill(0, s.pred_label, 1) for s in results
        ]
        assert torch.equal(samples[0].gt_score, before[0].gt_score)
    found, expected = torch.stack(found).long(), torch.stack(expected).long()
    assert torch.equal(found, expected)
    assert 0.2 < found.float().mean() < 0.8


@pytest.mark.parametrize('kind', SIGMOID)
def test_lambda_rises_where_a_sigmoid_host_notices(sigmoid_host, kind):
    """Steps of twice the RMS leave nothing of the features. The multiplier
    fell, as nothing was noticed, and ended at 0 bits."""
    model, inputs, samples = sigmoid_host(
        kind, 'envelope',
        discrepancy=DISCREPANCIES['kl'],
        training=dict(
            type='mmfeatjnd.QuantizationSurrogate', magnitude='rate'),
        objective=dict(tolerance=0.01, adapt=0.1))
    model.train()
    for _ in range(3):
        losses = model.loss(inputs, samples)
    assert losses['jnd_discrepancy'] > 0.05
    assert losses['jnd_multiplier'] > 1.1


@pytest.mark.parametrize('head, message', [
    (dict(type='LinearClsHead', num_classes=1, in_channels=32,
          topk=(1, )), 'a softmax over one class'),
    (dict(type='MIMHead', loss=dict(type='PixelReconstructionLoss',
                                    criterion='L2')), 'predicts no classes'),
])
def test_a_host_without_classes_is_refused(build, batch, configs, head,
                                           message):
    cfg = configs[1]('classifier')
    cfg['head'] = head
    model = build(cfg).train()
    with pytest.raises(TypeError, match=f'{message}.*Annotation'):
        model.loss(*batch('classifier'))


# -------------------------------------------- windows that slide over an image
@pytest.fixture
def sliding(build, configs):
    """Windows of 16 x 24 pixels, four of them, in two of 64 channels' rows."""

    def make(plain=False):
        cfg = configs[1]('segmentor', plain=plain)
        cfg['backbone'].update(strides=(1, 2, 1, 1))
        cfg['test_cfg'] = dict(
            mode='slide', crop_size=(16, 24), stride=(16, 8))
        return redraw(build(cfg))

    return make


def sliding_gradient(model, inputs, ids):
    """A draw of the gradients of the four windows, without our splits."""
    windows = []

    def leaf(module, args, output):
        windows.append(output[3].detach().requires_grad_())
        return (*output[:3], windows[-1] * 1)

    handle = model.backbone.register_forward_hook(leaf)
    metas = [dict(ori_shape=inputs.shape[2:])] * len(inputs)
    logits = model.slide_inference(inputs, metas)
    handle.remove()
    answer = dict(cls=Distribution('categorical', logits))
    return torch.autograd.grad(score(answer, image_keys(ids)), windows)


@pytest.mark.parametrize('plain', [False, True])
def test_the_gradient_of_every_window(sliding, batch, plain):
    model = sliding(plain)
    inputs, samples = batch('segmentor', 2)
    expected = sliding_gradient(sliding(), inputs,
                                [s.img_id for s in samples])
    found = next(task_gradients(find_neck(model), inputs, samples)[1])
    assert list(found) == [0, 1, 2, 3]
    assert not any(x.any() for level in (0, 1, 2) for x in found[level])
    assert len(found[3]) == len(expected) == 4
    for a, b in zip(found[3], expected):
        assert a.shape == (2, 64, 2, 3) and a.any()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('operation', [
    Perturbation('gradient-sensitivity', 0.5),
    Quantization('gradient', scale=0.3, coded=True),
    Perturbation('gaussian', 0.5),
], ids=['gradient-sensitivity', 'gradient', 'gaussian'])
def test_operations_on_every_window(sliding, batch, operation):
    model = sliding()
    inputs, samples = batch('segmentor', 2)
    clean = model(inputs, [s.clone() for s in samples], mode='predict')
    results, run = measure(model, operation, inputs, samples)
    for result, before in zip(results, clean):
        assert result.seg_logits.data.isfinite().all()
        assert not torch.allclose(
            result.seg_logits.data, before.seg_logits.data, atol=1e-2)
    if 'nrmse' in run.measured and isinstance(operation, Perturbation):
        assert run.measured['nrmse'].tolist() == pytest.approx([0.5, 0.5])
    else:  # 4 windows of 64 x 2 x 3 values
        assert run.measured['elements'].tolist() == [1536, 1536]
        assert (8 * run.measured['coded_bytes'] > run.measured['bits']).all()
    # and each image is the same alone
    for i in range(2):
        alone, other = measure(
            model, operation, inputs[i:i + 1], samples[i:i + 1])
        torch.testing.assert_close(
            alone[0].seg_logits.data, results[i].seg_logits.data, rtol=1e-3,
            atol=1e-4)
        for key, value in run.measured.items():
            assert other.measured[key].item() == pytest.approx(
                value[i].item(), rel=1e-3)


def test_noise_differs_from_window_to_window(sliding, batch):
    model, seen = sliding(), []

    class Keep(Perturbation):

        def __call__(self, feature, level, visit):
            value = super().__call__(feature, level, visit)
            seen.append((value - feature)[0].flatten())
            return value

    measure(model, Keep('gaussian', 1.0), *batch('segmentor', 1))
    assert len(seen) == 4
    similarity = torch.corrcoef(torch.stack(seen)) - torch.eye(4)
    assert similarity.abs().max() < 5 / seen[0].numel()**0.5


# --------------------------------------------- batches of images of many sizes
SIZES = [(20, 28), (32, 32), (40, 24), (13, 47)]


@pytest.fixture
def pointwise(build, configs):
    """A detector whose backbone sees no neighbours: within an image its
    features do not depend on the padding. Two levels, of 4 and 8 pixels a
    token, with 8 and 16 channels."""

    class Pointwise(nn.Module):

        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.second = nn.Conv2d(8, 16, 1)

        def forward(self, x):
            x = self.first(F.avg_pool2d(x, 4)).relu()
            return x, self.second(F.avg_pool2d(x, 2)).relu()

    MODELS.register_module(name='TestPointwise', module=Pointwise)
    cfg = configs[1](
        'detector',
        discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth', score_thr=0.0),
        in_channels=[8, 16],
        estimator=dict(mode='envelope'))
    cfg['backbone'] = dict(type='mmengine.TestPointwise')
    cfg['neck']['neck'].update(in_channels=[8, 16], num_outs=5)
    cfg['data_preprocessor']['pad_size_divisor'] = 8
    model = build(cfg)
    for estimator in model.neck.estimators:
        estimator.initial.fill_(1)
        nn.init.normal_(estimator.expand.weight, std=0.3)
    yield model
    del MODELS.module_dict['TestPointwise']


def images(*which):
    """A batch of a data loader."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    inputs, samples = [], []
    for i in which:
        height, width = SIZES[i]
        generator = torch.Generator().manual_seed(i)
        inputs.append(torch.randint(
            256, (3, height, width), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(metainfo=dict(
            img_id=i, img_shape=SIZES[i], ori_shape=SIZES[i],
            scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[1.0, 1.0, width / 2, height / 2]]),
            labels=torch.tensor([0]))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.5),
    Perturbation('featjnd', 0.5),
    Perturbation('permuted', 0.5),
    Quantization('one-step', scale=0.3, coded=True),
    Quantization('featjnd', scale=0.1, coded=True),
    Quantization('permuted-steps', bits=1.0, coded=True),
], ids=lambda o: getattr(o, 'distortion', None) or o.name)
def test_what_is_measured_does_not_depend_on_the_padding(
        pointwise, operation):
    """To the last bit, at any batch size."""
    tables = []
    for size in (1, 2, 4):
        rows = []
        for start in range(0, 4, size):
            with torch.no_grad(), every_forward(
                    pointwise.neck, operation) as runs:
                pointwise.test_step(images(*range(start, start + size)))
            rows.append(runs[0].measured)
        tables.append({k: torch.cat([r[k] for r in rows]) for k in rows[0]})
    for table in tables[1:]:
        assert table.keys() == tables[0].keys()
        for key, value in tables[0].items():
            assert torch.equal(table[key], value), key
    if 'elements' in tables[0]:
        # a token is there where a pixel of it is: 5 x 7 of 8 channels and
        # 3 x 4 of 16, and so on
        assert tables[0]['elements'].tolist() == [
            5 * 7 * 8 + 3 * 4 * 16, 8 * 8 * 8 + 4 * 4 * 16,
            10 * 6 * 8 + 5 * 3 * 16, 4 * 12 * 8 + 2 * 6 * 16
        ]


@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.5), Quantization('one-step', scale=0.3)
], ids=['perturbation', 'quantization'])
def test_the_features_behind_the_operation(pointwise, operation):
    """Within an image they are those of the image alone; the padding stays,
    or is not sent and is that of an input of padding: of a host without
    neighbourhoods the same."""
    model, seen = pointwise, []
    handle = model.neck.neck.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))

    def features(batch, operation=None):
        seen.clear()
        with torch.no_grad():
            if operation is None:
                model.test_step(batch)
            else:
                with every_forward(model.neck, operation):
                    model.test_step(batch)
        return seen[-1]

    alone = [features(images(i), operation) for i in range(4)]
    clean = features(images(0, 1, 2, 3))
    together = features(images(0, 1, 2, 3), operation)
    handle.remove()
    for level, stride in enumerate((4, 8)):
        for i, (height, width) in enumerate(SIZES):
            h, w = -(-height // stride), -(-width // stride)
            whole = together[level][i]
            assert torch.equal(whole[:, :h, :w], alone[i][level][0, :, :h, :w])
            assert not torch.equal(
                whole[:, :h, :w], clean[level][i, :, :h, :w])
            outside = torch.ones_like(whole, dtype=torch.bool)
            outside[:, :h, :w] = False
            assert torch.equal(whole[outside], clean[level][i][outside])


def test_training_on_images_of_many_sizes(pointwise):
    """What lies beside the images is neither perturbed nor rewarded."""
    model = pointwise.train()
    data = model.data_preprocessor(images(0, 1, 2, 3), True)
    losses = model.loss(**data)
    model.parse_losses(losses)[0].backward()
    assert all(v.isfinite().all() for v in losses.values())
    # other pixels there change nothing of the magnitude
    other = images(0, 1, 2, 3)
    data = model.data_preprocessor(other, True)
    assert data['inputs'].shape[-2:] == (40, 48)
    torch.manual_seed(0)
    first = model.loss(**copy.deepcopy(data))['jnd_magnitude']
    for i, (height, width) in enumerate(SIZES):
        data['inputs'][i, :, -(-height // 8) * 8:] = 3.0
        data['inputs'][i, :, :, -(-width // 8) * 8:] = 3.0
    model.featjnd_steps._call -= 1  # the same draws
    second = model.loss(**data)['jnd_magnitude']
    assert first.item() == pytest.approx(second.item(), rel=1e-5)


# ------------------------------------------------- images without any region
@pytest.mark.parametrize('kind', ['bbox', 'mask'])
def test_images_without_regions_cost_nothing(build, batch, kind):
    """A mask head runs for detected objects only."""
    split = dict(
        bbox='roi_head.bbox_head.shared_fcs.0',
        mask='roi_head.mask_head.convs.0')[kind]
    channels = dict(bbox=32, mask=16)[kind]
    model = build('detector', split=split, in_channels=channels,
                  estimator=dict(type='mmfeatjnd.TokenEstimator')
                  if kind == 'bbox' else {})
    inputs, samples = batch('detector', 2)
    operation = Quantization('one-step', scale=0.25, coded=True)
    _, run = measure(model, operation, inputs, samples)
    assert (run.measured['coded_bytes'] > 0).all()
    model.roi_head.test_cfg.score_thr = 1.1
    results, run = measure(model, operation, inputs, samples)
    assert not any(len(r.pred_instances) for r in results)
    if kind == 'mask':
        assert run.measured == {}
    else:
        assert (run.measured['coded_bytes'] > 0).all()


def test_a_batch_without_regions_counts_as_beside_others():
    """The third of three images has no region: in a batch of its own it has
    measured nothing, in one with others 0 bytes and no NRMSE."""
    nan = float('nan')
    alone = [(2, dict(nrmse=torch.tensor([0.5, 0.25]),
                      coded_bytes=torch.tensor([20.0, 10.0]))), (1, {})]
    together = [(3, dict(nrmse=torch.tensor([0.5, 0.25, nan]),
                         coded_bytes=torch.tensor([20.0, 10.0, 0.0])))]
    for batches in (alone, together, alone[::-1]):
        columns = columns_of(image_rows(batches), ('coded_bytes', ))
        assert list(columns) == ['nrmse', 'coded_bytes']
        assert columns['coded_bytes'].mean() == 10
        assert columns['nrmse'].nanmean() == 0.375
        assert columns['nrmse'].dtype == torch.float64
    assert columns_of(image_rows([(2, {}), (1, {})])) == {}
