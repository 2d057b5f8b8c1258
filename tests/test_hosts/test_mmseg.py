import pytest
import torch
from torch.nn import functional as F

from mmfeatjnd.functional import Distribution, image_keys, score
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models import find_neck, task_sensitivity
from mmfeatjnd.models.sensitivity import task_gradients

BINARY = dict(
    num_classes=2,
    out_channels=1,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))


def make(build, configs, test_cfg=None, **head):
    cfg = configs[1]('segmentor')
    cfg['decode_head'].update(head)
    if test_cfg:
        cfg['test_cfg'] = test_cfg
    model = build(cfg)
    torch.manual_seed(1)  # it begins with logits of almost 0
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


def answer(model, inputs, samples=None):
    return adapter_of(model).answer(model, inputs, samples)


def test_a_softmax(build, batch, configs):
    got = answer(make(build, configs), *batch('segmentor'))
    assert got.kind == 'categorical' and got.logits.shape[:2] == (2, 3)


@pytest.mark.parametrize('threshold', [None, 0.3, 0.6])
def test_a_threshold(build, batch, configs, threshold):
    """One channel, and a sigmoid; what it decides is what it predicts."""
    model = make(build, configs, threshold=threshold, **BINARY)
    inputs, samples = batch('segmentor')
    adapter = adapter_of(model)
    with torch.no_grad():
        got = adapter.answer(model, inputs, samples)
        targets = adapter.own_targets(model, inputs, samples, 0.)
        results = model.predict(inputs, [s.clone() for s in samples])
    assert got.kind == 'binary' and got.logits.shape[:2] == (2, 1)
    assert got.threshold == (threshold or 0.3)  # MMSegmentation's own
    for target, result in zip(targets, results):
        assert torch.equal(target.gt_sem_seg.data, result.pred_sem_seg.data)


def test_the_last_of_several_heads_decides(build, batch, configs):
    cfg = configs[1]('segmentor')
    first = dict(cfg['decode_head'], **BINARY)
    second = dict(first, type='OCRHead', ocr_channels=8, threshold=0.7)
    second.pop('num_convs')
    cfg.update(
        host='mmseg.CascadeEncoderDecoder',
        num_stages=2,
        decode_head=[first, second])
    got = answer(build(cfg), *batch('segmentor'))
    assert got.kind == 'binary' and got.threshold == 0.7


def test_depth_is_no_class(build, batch, configs):
    cfg = configs[1]('segmentor', in_channels=[16, 32, 64, 128])
    cfg.update(host='mmseg.DepthEstimator')
    cfg['backbone']['base_channels'] = 16
    cfg['decode_head'] = dict(
        type='VPDDepthHead',
        in_channels=[16, 32, 64, 128],
        embed_dim=16,
        feature_dim=128,
        num_deconv_filters=(8, 8, 8))
    model = build(cfg)
    with pytest.raises(TypeError, match='predicts depth, not classes.*'
                       'mmfeatjnd.Annotation'):
        answer(model, *batch('segmentor'))


def test_own_targets_leave_the_users_samples_alone(build, batch, configs):
    model = make(build, configs)
    inputs, samples = batch('segmentor')
    before = [s.gt_sem_seg.data.clone() for s in samples]
    targets = adapter_of(model).own_targets(model, inputs, samples, 0.)
    for target, sample, data in zip(targets, samples, before):
        assert target is not sample
        assert torch.equal(sample.gt_sem_seg.data, data)


# -------------------------------------------------------------------- windows
SLIDE = dict(mode='slide', crop_size=(24, 24), stride=(8, 8))


def test_nothing_is_known_of_the_padding_of_windows(build, batch, configs):
    inputs, samples = batch('segmentor')
    samples[1].set_metainfo(dict(img_shape=(20, 32)))
    whole, slides = (
        make(build, configs, test_cfg) for test_cfg in (None, SLIDE))
    expected = [(32, 32, 32, 32), (20, 32, 32, 32)]
    for model, training, found in ((whole, False, expected),
                                   (whole, True, expected),
                                   (slides, False, None),
                                   (slides, True, expected)):
        assert adapter_of(model).content(model, inputs, samples,
                                         training) == found


def test_the_gradient_of_windows(build, batch, configs):
    """That of the task whose prediction is put together from windows, for
    each window its own."""
    model = make(build, configs, SLIDE)
    inputs, samples = batch('segmentor')
    meta = [dict(s.metainfo) for s in samples]
    _, draws = task_gradients(find_neck(model), inputs, samples)
    result = next(draws)
    assert [dict(s.metainfo) for s in samples] == meta
    # four windows, (0, 0), (0, 8), (8, 0) and (8, 8)
    assert {k: len(v) for k, v in result.items()} == dict.fromkeys(range(4), 4)
    spots = [(0, 0), (0, 8), (8, 0), (8, 8)]
    with torch.no_grad():
        features = [
            model.backbone(inputs[..., y:y + 24, x:x + 24])
            for y, x in spots
        ]
    leaves = [f[3].requires_grad_() for f in features]
    total = torch.zeros(2, 3, 32, 32)
    count = torch.zeros(32, 32)
    for (y, x), levels, leaf in zip(spots, features, leaves):
        logits = model.decode_head.forward([*levels[:3], leaf])
        logits = F.interpolate(logits, (24, 24), mode='bilinear')
        total = total + F.pad(logits, (x, 8 - x, y, 8 - y))
        count[y:y + 24, x:x + 24] += 1
    logits = total / count
    answer = dict(cls=Distribution('categorical', logits))
    keys = image_keys([s.img_id for s in samples])
    grads = torch.autograd.grad(score(answer, keys), leaves)
    for got, grad in zip(result[3], grads):
        torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(result[3][0], result[3][3], rtol=0.1, atol=0)


def test_whole_images_have_one_gradient(build, batch, configs):
    model = make(build, configs)
    result = task_sensitivity(find_neck(model), *batch('segmentor'))
    assert [len(v) for v in result.values()] == [1] * 4


def test_a_crop_of_a_training_that_was_padded(build, batch, configs):
    """As the data preprocessor of a training leaves it: a torch.Size."""
    host = build(configs[0]('segmentor'))
    inputs, samples = batch('segmentor')
    padded = torch.nn.functional.pad(inputs[..., :16], (0, 16))
    for sample in samples:
        sample.set_metainfo(dict(img_shape=torch.Size((32, 16)),
                                 padding_size=(0, 16, 0, 0)))
    with torch.no_grad():
        found = adapter_of(host).predict(host, padded, samples)
    assert found[0].seg_logits.data.shape[1:] == (32, 32)
    assert samples[0].padding_size == (0, 16, 0, 0)
