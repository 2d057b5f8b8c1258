from collections import Counter

import pytest
import torch
from torch import nn

from mmfeatjnd.hosts import sharing_prefix
from mmfeatjnd.models import (
    FeatJNDNeck,
    Perturbation,
    PrefixReplay,
    check_faults,
    find_neck,
    find_read_levels,
)
from mmfeatjnd.models.forward_runs import every_forward
from mmfeatjnd.models.splits import attached

SPLITS = [
    ('classifier', dict(split='backbone')),
    ('classifier', dict(split='backbone.layer2', in_channels=16)),
    ('classifier', dict(split='backbone.layer2.0', in_channels=16)),
    ('classifier', dict(split='backbone.layer2.0.conv1', in_channels=16)),
    ('segmentor', dict(split='backbone', levels=[3])),
    ('segmentor', dict(split='backbone.layer1', in_channels=8)),
    ('detector', dict(split='backbone')),
    ('detector', dict(split='neck')),
    ('detector', dict(split='r3', in_channels=16)),
    ('detector', dict(split='c2', in_channels=[16] * 4)),
]
IDS = [f'{k}-{v["split"]}' for k, v in SPLITS]


def hooks_of(model):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks)
        for m in model.modules())


def patched(model):
    return [n for n, m in model.named_modules() if 'forward' in vars(m)]


def run(model, inputs):
    with torch.no_grad():
        return model.extract_feat(inputs)


def tensors(x):
    return x if isinstance(x, (list, tuple)) else [x]


@pytest.mark.parametrize('kind, neck', SPLITS, ids=IDS)
def test_record_and_replay_change_nothing(build, batch, kind, neck):
    model = build(kind, **neck)
    inputs, _ = batch(kind)
    expected = run(model, inputs)
    prefix = PrefixReplay(find_neck(model))
    with prefix.record():
        recorded = run(model, inputs)
    assert prefix.outputs and patched(model) == [] and hooks_of(model) == 0
    for _ in range(2):
        with prefix.replay():
            assert patched(model)
            replayed = run(model, inputs)
        assert patched(model) == [] and hooks_of(model) == 0
        for a, b, c in zip(*map(tensors, (expected, recorded, replayed))):
            assert torch.equal(a, b) and torch.equal(a, c)


def count_computed(model, function, *args):
    """How often the forward function of each leaf module really runs."""
    counter = Counter()
    names = {m: n for n, m in model.named_modules() if not list(m.children())}
    originals = {c: vars(c).get('forward') for c in map(type, names)}

    def counting(forward):

        def counted(self, *args, **kwargs):
            counter[names[self]] += 1
            return forward(self, *args, **kwargs)

        return counted

    try:
        for cls in originals:
            cls.forward = counting(cls.forward)
        function(*args)
    finally:
        for cls, original in originals.items():
            if original is None:
                del cls.forward
            else:
                cls.forward = original
    return counter


@pytest.mark.parametrize('kind, neck, before, after', [
    (*SPLITS[0], 'backbone', 'head.fc'),
    (*SPLITS[1], 'backbone.layer1', 'backbone.layer3'),
    (*SPLITS[3], 'backbone.layer1', 'backbone.layer2.0.conv2'),
    (*SPLITS[4], 'backbone', 'decode_head.convs'),
    (*SPLITS[6], 'backbone', 'neck.neck'),
    (*SPLITS[7], 'neck.neck', 'rpn_head'),
    (*SPLITS[8], 'backbone.layer1', 'backbone.layer3'),
])
def test_what_lies_before_the_split_runs_once(build, batch, kind, neck,
                                              before, after):
    model = build(kind, **neck).train()
    inputs, samples = batch(kind)
    # asked once in a training, by a prediction
    find_read_levels(model.neck, inputs, samples)
    one = count_computed(model, run, model, inputs)
    all_ = count_computed(model, model.loss, inputs, samples)
    first = [n for n in all_ if n.startswith(f'{before}.')]
    second = [n for n in all_ if n.startswith(after)]
    assert first and all(all_[n] == one[n] for n in first)
    assert second and all(all_[n] >= 2 * max(one[n], 1) for n in second)


@pytest.mark.parametrize('neck', [SPLITS[0][1], SPLITS[1][1]])
def test_everything_is_gone_after_an_exception(build, batch, neck):
    model = build('classifier', **neck)
    inputs, _ = batch('classifier')
    prefix = PrefixReplay(find_neck(model))
    with pytest.raises(KeyError):
        with prefix.record():
            raise KeyError
    assert prefix.outputs is None
    with prefix.record():
        run(model, inputs)
    for context in (prefix.replay, prefix.record,
                    lambda: sharing_prefix(model, prefix)):
        with pytest.raises(KeyError):
            with context():
                raise KeyError
        assert patched(model) == [] and hooks_of(model) == 0
        assert model.neck.change is None and not model.neck.attached
        assert '_shared_prefix' not in vars(model)


def test_somebody_elses_patch_survives(build, batch):
    model = build('classifier')
    inputs, _ = batch('classifier')
    original, calls = model.backbone.forward, []

    def patch(*args):
        calls.append(1)
        return original(*args)

    model.backbone.forward = patch
    prefix = PrefixReplay(find_neck(model))
    with prefix.record():
        run(model, inputs)
    with prefix.replay():
        run(model, inputs)
    assert calls == [1]
    assert model.backbone.forward is patch


def test_work_in_place_does_not_reach_the_record():
    """Neither before the split nor in levels that pass through it."""

    class Backbone(nn.Module):

        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)
            self.second = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            x = self.first(x)
            x += 1
            return x, self.second(x)

    class Host(nn.Module):

        def __init__(self, split):
            super().__init__()
            torch.manual_seed(0)
            self.backbone = Backbone()
            self.neck = FeatJNDNeck(
                dict(type='mmfeatjnd.ConvEstimator', hidden_channels=2),
                in_channels=[3, 3] if split == 'backbone' else 3,
                levels=[1] if split == 'backbone' else None,
                split=split)

        def forward(self, x):
            low, high = self.neck(self.backbone(x))
            low *= 2
            high *= 2
            return low + high

    for split in ('backbone', 'backbone.second'):
        host, inputs = Host(split), torch.rand(2, 3, 4, 4)
        with torch.no_grad():
            expected = host(inputs)
            prefix = PrefixReplay(find_neck(host))
            for _ in range(3):
                with prefix.one_pass():
                    assert torch.equal(host(inputs), expected)


def test_other_inputs_after_the_recorded_ones(build, batch):
    """A host that slides over an image runs the backbone several times."""
    model = build('classifier')
    inputs, _ = batch('classifier')
    other = torch.rand_like(inputs)
    expected = run(model, inputs), run(model, other)
    prefix = PrefixReplay(find_neck(model))
    for _ in range(2):
        with prefix.one_pass():
            for x, y in zip((inputs, other), expected):
                assert torch.equal(run(model, x)[0], y[0])


def test_an_input_of_another_size_is_computed(build, batch):
    """As queries and regions, of which a loss has more than a
    prediction."""
    model = build('classifier')
    inputs, _ = batch('classifier')
    expected = run(model, inputs[:1]), run(model, inputs[..., :16])
    prefix = PrefixReplay(find_neck(model))
    with prefix.record():
        run(model, inputs)
    for i, other in enumerate((inputs[:1], inputs[..., :16])):
        with prefix.replay():
            assert torch.equal(run(model, other)[0], expected[i][0])


def test_the_gradient_does_not_reach_the_prefix(build, batch):
    model = build('classifier')
    inputs, samples = batch('classifier')
    with torch.no_grad(), (prefix := PrefixReplay(find_neck(model))).record():
        model.extract_feat(inputs)
    with prefix.replay():
        assert not model.extract_feat(inputs)[0].requires_grad


def test_attached_is_reentrant(build):
    model = build('classifier', split='backbone.layer2', in_channels=16)
    layer = model.backbone.layer2
    with attached(model.neck):
        assert len(layer._forward_hooks) == 1
        with attached(model.neck):
            assert len(layer._forward_hooks) == 1
        assert len(layer._forward_hooks) == 1 and model.neck.attached
    assert len(layer._forward_hooks) == 0 and not model.neck.attached
    plain = build('classifier')
    with attached(find_neck(plain)):
        assert hooks_of(plain) == 0


def test_outputs_of_every_kind():
    from collections import namedtuple

    from mmfeatjnd.models.splits.reach import _apply_to_output
    neck = FeatJNDNeck(
        dict(type='mmfeatjnd.TokenEstimator'),
        in_channels=[4, 4],
        split='backbone.stage')
    x, y = torch.rand(2, 9, 4), torch.rand(2, 4, 4)
    pair = namedtuple('pair', 'tokens shape')
    with neck.changing(lambda x, level: x + 1 + level):
        assert torch.equal(_apply_to_output(neck, x, 1), x + 2)
        for output in ((x, (3, 3), y, None), [x, (3, 3), y, None]):
            new = _apply_to_output(neck, output, 0)
            assert type(new) is type(output)
            assert torch.equal(new[0], x + 1) and torch.equal(new[2], y + 2)
            assert new[1] == (3, 3) and new[3] is None
        new = _apply_to_output(neck, pair(x, torch.tensor([3, 3])), 0)
        assert isinstance(new, pair) and torch.equal(new.tokens, x + 1)
        assert new.shape.tolist() == [3, 3]
        with pytest.raises(ValueError, match='backbone.stage.*returns dict'):
            _apply_to_output(neck, dict(x=x), 0)


# -------------------------------------------------------------------- regions
BOX = dict(
    split='roi_head.bbox_head.shared_fcs.0',
    in_channels=32,
    estimator=dict(type='mmfeatjnd.TokenEstimator', mode='envelope'))
MASK = dict(
    split='roi_head.mask_head.convs',
    in_channels=[16],
    estimator=dict(mode='envelope'))


def predict(model, inputs, samples, operation):
    model.neck.read_levels = None
    with torch.no_grad(), every_forward(model.neck, operation) as runs:
        results = model(inputs, [s.clone() for s in samples], mode='predict')
    return results, runs[0]


@pytest.mark.parametrize('neck', [BOX, MASK])
def test_regions_belong_to_their_images(build, batch, neck):
    """As many as each has: what is measured of an image, and what the host
    makes of it, is what it is alone."""
    model = build('detector', **neck)
    # unlike images, and only regions that are apart
    for part in (model.rpn_head, model.roi_head):
        part.test_cfg.nms.iou_threshold = 0.02
        part.test_cfg.max_per_img = 100
    inputs, samples = batch('detector', 3)
    inputs[1, :, :, 12:] = 0
    inputs[2] *= 3
    rows = []
    apply_level = model.neck.apply_level

    def watch(feature, level):
        if model.neck.row_images is not None:
            rows.append(model.neck.row_images.bincount(minlength=3).tolist())
        return apply_level(feature, level)

    model.neck.apply_level = watch
    operation = Perturbation('gaussian', 0.7)
    results, together = predict(model, inputs, samples, operation)
    check_faults([together])
    assert len(set(rows[-1])) > 1  # unequal numbers
    for i in range(3):
        one, alone = predict(model, inputs[i:i + 1], samples[i:i + 1],
                             operation)
        for key, value in together.measured.items():
            torch.testing.assert_close(
                value[i], alone.measured[key][0], rtol=1e-3, atol=1e-5)
        a, b = results[i].pred_instances, one[0].pred_instances
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-3, atol=1e-5)
    assert hooks_of(model) == 0 and model.neck.row_images is None


def test_pictures_without_detections(build, batch):
    """Their masks are not asked for."""
    model = build('detector', **MASK)
    model.roi_head.test_cfg.score_thr = 1.1
    results, run = predict(model, *batch('detector'),
                           Perturbation('gaussian', 0.7))
    assert [len(r.pred_instances) for r in results] == [0, 0]
    assert run.measured == {}
    check_faults([run])


@pytest.mark.parametrize('kind, split, expected', [
    ('classifier', 'backbone.layer2', (16, )),
    ('classifier', 'backbone.layer2.0.conv1', (16, )),
    ('detector', 'c2', (16, ) * 4),
    ('detector', 'roi_head.bbox_head.shared_fcs.0', (32, )),
    ('detector', 'roi_head.bbox_roi_extractor', (16, )),
    ('detector', 'backbone.relu', (None, )),
])
def test_channels_that_a_module_says_it_emits(build, kind, split, expected):
    model = build(kind, split=split, in_channels=[16] * len(expected))
    with attached(model.neck):
        assert model.neck.emitted == expected


def test_a_split_that_is_never_reached(build, batch):
    model = build(
        'classifier', split='head.loss_module', in_channels=4)
    with pytest.raises(ValueError, match='never reached'):
        model.train().loss(*batch('classifier'))
    assert hooks_of(model) == 0 and patched(model) == []


def test_a_level_that_is_not_emitted(build, batch):
    model = build(
        'classifier', split='backbone.layer2', in_channels=[16, 16])
    with pytest.raises(ValueError, match=r'does not emit level\(s\) \[1\]'):
        model.train().loss(*batch('classifier'))


def test_find_neck(build):
    model = build('classifier')
    assert find_neck(model) is model.neck
    assert find_neck(nn.DataParallel(model)) is model.neck
    with pytest.raises(ValueError, match='Sequential.*but has none'):
        find_neck(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match='but has 2'):
        find_neck(nn.ModuleList([model, build('classifier')]))
