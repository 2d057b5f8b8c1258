"""Noise and measurements belong to images, whatever the batch."""
import math

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmfeatjnd.functional import (
    gaussian_noise,
    image_keys,
    nrmse,
    uniform_noise,
)
from mmfeatjnd.models import (
    FeatJNDNeck,
    Perturbation,
    Quantization,
    Run,
    build_distortion,
    check_faults,
    distortion_names,
    image_ids,
)

CHANNELS = 4
#: Steps in so many sizes that a search for bits does not jump.
FINE = dict(granularity='channel-token', jnd_rounding=True, power=1)
OPERATIONS = [
    Perturbation(name, 0.5, seed=3) for name in distortion_names()
    # of an input, not of its parts
    if name != 'outside-boxes' and build_distortion(name).metric is None
] + [
    Perturbation(name, 0.5, 'channel', valid, seed=3)
    for name in ('gaussian', 'featjnd') for valid in (False, True)
] + [
    Quantization(name, seed=3, **how)
    for name in (dict(type='featjnd', **FINE),
                 dict(type='permuted-steps', **FINE), 'one-step', 'range',
                 'gradient', 'water-filling', 'clip-uniform',
                 dict(type='token-map', map='static'))
    for how in (dict(scale=0.5), dict(bits=0.8))
]
NAMES = [
    f'{o.name}-' + '-'.join(
        str(getattr(o, k, None)) for k in ('bits', 'definition', 'valid'))
    for o in OPERATIONS
]


def make_neck(kind='Conv', levels=1, **kwargs):
    torch.manual_seed(0)
    neck = FeatJNDNeck(
        dict(type=f'mmfeatjnd.{kind}Estimator', hidden_channels=8),
        in_channels=[CHANNELS] * levels,
        **kwargs).eval()
    for estimator in neck.estimators:  # what training would have counted
        estimator.known.map.normal_()
        estimator.known.others.normal_()
        estimator.channels.low.fill_(-3)
        estimator.channels.high.fill_(4)
    return neck


def make_feature(ids, *shape, seed=77):
    """What a host may say of images; the same for an image in any batch."""
    return 0.5 + gaussian_noise(image_keys(ids, seed), (CHANNELS, *shape))


def apply(operation, neck, *features, owner=None, **kwargs):
    """``owner``: the image of each region, as a RoI extractor knows it."""
    with torch.no_grad(), neck.run(operation, **kwargs) as run:
        neck.row_images = owner if owner is None else torch.tensor(owner)
        return neck.apply_levels(features), run


def assert_same_measured(run, i, other, j):
    assert list(run.measured) == list(other.measured)
    for name, value in run.measured.items():
        # sums in float32, whose order is that of the batch
        close = dict(rtol=1e-5, atol=1e-5)
        if name in ('square', 'volume'):
            close['atol'] = 1e-4
        torch.testing.assert_close(
            value[i], other.measured[name][j], equal_nan=True, msg=name,
            **close)


# ------------------------------------------------------------------- padding
# height and width of images in an input of 24 x 32, and on maps of an
# eighth and a half of it: a cell that holds a part of an image is its own
SIZES = {
    'a': (24, 32, (6, 8), (3, 4)),
    'b': (15, 20, (4, 5), (2, 3)),
    'c': (24, 9, (6, 3), (3, 2)),
    'd': (1, 32, (1, 8), (1, 4)),
}


def make_batch(ids):
    """Two levels, padded with what is left of other images."""
    levels, content = [], []
    for level, whole in enumerate(((6, 8), (3, 4))):
        x = make_feature(range(len(ids)), *whole, seed=1000)
        for row, i in zip(x, ids):
            h, w = SIZES[i][2 + level]
            row[:, :h, :w] = make_feature([i], h, w)[0]
        levels.append(x)
    content = [(*SIZES[i][:2], 24, 32) for i in ids]
    return levels, content


def sensitivity_of(levels):
    return {i: [(x + 1).square()] for i, x in enumerate(levels)}


@pytest.mark.parametrize('operation', OPERATIONS, ids=NAMES)
def test_an_image_in_a_batch_of_larger_ones(operation):
    """Values, noise, NRMSE, symbols and bits are those of the image alone,
    whose map ends where the image does."""
    neck = make_neck(levels=2)
    for ids in ('abcd', 'dbac', 'bb'):
        levels, content = make_batch(ids)
        batch, run = apply(
            operation, neck, *levels, images=ids, content=content,
            sensitivity=sensitivity_of(levels))
        symbols = {}
        for images, kept in run.kept:  # of every level and size of images
            if not isinstance(operation, Quantization):
                continue
            level = 0 if kept.symbols.shape[2:] in [
                SIZES[i][2] for i in 'abcd'] else 1
            for row, i in enumerate(images.tolist()):
                symbols[level, i] = kept.symbols[row]
        for i, name in enumerate(ids):
            alone = [
                x[i:i + 1, :, :h, :w]
                for x, (h, w) in zip(levels, SIZES[name][2:])
            ]
            outputs, one = apply(
                operation, neck, *alone, images=name,
                sensitivity=sensitivity_of(alone))
            assert_same_measured(run, i, one, 0)
            for level, (x, y, out) in enumerate(zip(levels, batch, outputs)):
                h, w = SIZES[name][2 + level]
                torch.testing.assert_close(y[i, :, :h, :w], out[0])
                assert not torch.equal(out[0], x[i, :, :h, :w])
                padding = y[i].clone()
                padding[:, :h, :w] = 0
                if isinstance(operation, Quantization):
                    assert not padding.any()  # is not sent
                    assert torch.equal(symbols[level, i],
                                       one.kept[level][1].symbols[0])
                    continue
                before = x[i].clone()
                before[:, :h, :w] = 0
                assert torch.equal(padding, before) and (
                    name == 'a' or before.any())


def test_the_strength_is_that_of_the_images():
    """Over the padding, an NRMSE of 0.5 would be another one."""
    levels, content = make_batch('abcd')
    outputs, run = apply(
        Perturbation('gaussian', 0.5), make_neck(levels=2), *levels,
        content=content)
    torch.testing.assert_close(run.measured['nrmse'],
                               torch.full((4, ), 0.5).double())
    for i, name in enumerate('abcd'):
        for x, y, (h, w) in zip(levels, outputs, SIZES[name][2:]):
            x, y = x[i:i + 1, :, :h, :w], y[i:i + 1, :, :h, :w]
            assert nrmse(y - x, x).item() == pytest.approx(0.5, rel=1e-4)
    _, run = apply(
        Quantization('one-step'), make_neck(levels=2), *levels,
        content=content)
    assert run.measured['elements'].tolist() == [
        CHANNELS * sum(h * w for h, w in SIZES[i][2:]) for i in 'abcd']


def test_content_means_nothing_to_tokens():
    neck = make_neck('Token')
    tokens = make_feature('ab', 7).mT
    content = [(4, 4, 8, 8), (8, 8, 8, 8)]
    (a, ), (b, ) = (
        apply(Perturbation('gaussian', 0.5), neck, tokens, **kwargs)[0]
        for kwargs in (dict(), dict(content=content)))
    assert torch.equal(a, b)


# --------------------------------------------------------------------- views
@pytest.mark.parametrize('operation', OPERATIONS, ids=NAMES)
def test_windows_of_an_image(operation):
    """Three rows an image: each has noise of its own, which is the image's,
    whatever the batch."""
    neck = make_neck('Token')

    def windows(ids):
        # the same everywhere, to see what the operation makes of it
        x = make_feature(ids, 40).mT
        return x.repeat_interleave(3, 0)

    def run(ids):
        x = windows(ids)
        return apply(
            operation, neck, x, images=ids, sensitivity=sensitivity_of([x]))

    (batch, ), result = run('abc')
    for i, name in enumerate('abc'):
        (alone, ), one = run(name)
        torch.testing.assert_close(alone, batch[3 * i:3 * i + 3])
        assert_same_measured(result, i, one, 0)
    (turned, ), _ = run('ca')
    torch.testing.assert_close(turned, torch.cat([batch[6:], batch[:3]]))
    if operation.name in ("distortion='gaussian'", "policy='permuted-steps'"):
        assert not torch.equal(batch[0], batch[1])
        assert not torch.equal(batch[1], batch[2])
        # the first has the noise of an image with one view, at a strength of
        # its own where all views share one
        if getattr(operation, 'definition', '') == 'channel':
            return
        (single, ), _ = apply(operation, neck, windows('a')[:1], images='a')
        assert torch.equal(single[0], batch[0])


def test_noise_of_views_has_nothing_in_common():
    neck = make_neck('Token')
    x = torch.ones(6, 5000, CHANNELS)
    (out, ), _ = apply(Perturbation('gaussian', 0.5), neck, x, images=[0, 1])
    rows = (out - x).flatten(1)
    correlation = torch.corrcoef(rows) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(rows.size(1))


@pytest.mark.parametrize('operation', OPERATIONS, ids=NAMES)
def test_regions_of_images(operation):
    """As many as an image has, also none."""
    neck = make_neck()
    # of images a, c and d; of b there is none
    regions = make_feature(['a0', 'a1', 'a2', 'c0', 'd0', 'd1'], 7, 7)

    def run(rows, owner, images):
        x = regions[rows]
        (out, ), result = apply(
            operation, neck, x, owner=owner, images=images,
            sensitivity=sensitivity_of([x]))
        return out, result

    out, result = run(range(6), [0, 0, 0, 2, 3, 3], 'abcd')
    assert not result.faults.any()
    for i, rows in enumerate(([0, 1, 2], [], [3], [4, 5])):
        if not rows:
            for name, value in result.measured.items():
                expected = 0 if name in operation.totals else math.nan
                torch.testing.assert_close(
                    value[i].item(), float(expected), equal_nan=True)
            continue
        alone, one = run(rows, [0] * len(rows), 'abcd'[i])
        torch.testing.assert_close(alone, out[rows])
        assert_same_measured(result, i, one, 0)
    # images in another order, and one more without regions
    turned, other = run([4, 5, 0, 1, 2], [0, 0, 2, 2, 2], 'dba')
    torch.testing.assert_close(turned, out[[4, 5, 0, 1, 2]])
    assert_same_measured(result, 3, other, 0)
    assert_same_measured(result, 0, other, 2)


def test_as_many_regions_as_images():
    """Two of one image and none of the other are not one of each."""
    neck = make_neck()
    x = make_feature('xx', 3, 3)
    (out, ), run = apply(
        Perturbation('gaussian', 0.5), neck, x, owner=[1, 1], images='ab')
    assert run.measured['nrmse'].isnan().tolist() == [True, False]
    assert not torch.equal(out[0], out[1])


def test_rows_that_belong_to_nobody():
    neck, operation = make_neck(), Perturbation('gaussian', 0.5)
    x = make_feature(range(5), 3, 3)
    with pytest.raises(RuntimeError, match="split='backbone' sees 5 rows for "
                       '2 images.*batch size of 1'):
        apply(operation, neck, x, images='ab')
    assert neck.change is None
    # a module that sees some of the regions only, as a mask head may: they
    # are no windows of the images, be they as many
    for rows in (2, 4):
        with pytest.raises(RuntimeError, match='2 images, and nothing says'):
            apply(
                operation, neck, x[:rows], owner=[0, 0, 0, 0, 0, 1],
                images='ab')
    # with one image there is nothing to mix up
    for owner in (None, [0, 0, 0]):
        _, run = apply(operation, neck, x, owner=owner, images='a')
        assert run.batch_size == 1


def test_the_regions_of_another_pass_are_forgotten():
    """What lies before the extractor sees images."""
    neck, operation = make_neck(), Perturbation('gaussian', 0.5)
    x = make_feature('ab', 3, 3)
    (expected, ), _ = apply(operation, neck, x, images='ab')
    neck.row_images = torch.tensor([1, 1])
    with torch.no_grad(), neck.run(operation, images='ab'):
        assert torch.equal(neck.apply_levels([x])[0], expected)


# --------------------------------------------------------------------- calls
@pytest.mark.parametrize('operation', OPERATIONS, ids=NAMES)
def test_a_level_that_is_reached_again(operation):
    """As by a window that slides over an image."""
    neck = make_neck(levels=2)
    x = make_feature('ab', 6, 6)
    sensitivity = {
        i: [x.square() + 1, x.abs() + call] for i, call in ((0, 1), (1, 2))}

    def run(calls, images):
        rows = ['ab'.index(i) for i in images]
        cut = {
            i: [s[rows] for s in values] for i, values in sensitivity.items()}
        with torch.no_grad(), neck.run(
                operation, images=images, sensitivity=cut) as run:
            out = [neck.apply_levels([x[rows]] * 2) for _ in range(calls)]
        return out, run

    twice, result = run(2, 'ab')
    once, _ = run(1, 'ab')
    for level in (0, 1):  # what comes first does not know of the second
        torch.testing.assert_close(twice[0][level], once[0][level])
    if operation.name in ("distortion='gaussian'", "policy='permuted-steps'"):
        for level in (0, 1):
            assert not torch.equal(twice[0][level], twice[1][level])
        # nor is the second call of one level the first of the next
        assert not torch.equal(twice[1][0], twice[0][1])
    if operation.needs_sensitivity:
        assert not torch.equal(twice[0][0], twice[1][0])
    alone, one = run(2, 'b')
    for a, b in zip(alone, twice):
        for level in (0, 1):
            torch.testing.assert_close(a[level][0], b[level][1])
    assert_same_measured(result, 1, one, 0)


# ----------------------------------------------------------------- measuring
class Counting:
    """Measures what is given to it, one row of a table for each view."""
    totals = ('total', )

    def __init__(self, table):
        self.rows = iter(table)

    def __call__(self, feature, level, visit):
        value = torch.tensor([next(self.rows) for _ in feature])
        visit.measure(total=value, mean=value)
        return feature


def test_sums_and_means_by_hand():
    neck = make_neck(levels=2)
    table = [1., 2., 10., 3., 4., 20., 5., 8., 60., 7., 9., 90.]
    x = make_feature('xyz', 2, 2)
    with neck.run(Counting(table), images='abc') as run:
        neck.row_images = torch.tensor([0, 0, 2])
        neck.apply_levels([x, x])
        neck.apply_levels([x, x])
    assert run.measured['total'].tolist() == [39, 0, 180]
    mean = run.measured['mean']
    assert mean[0] == 39 / 8 and mean[1].isnan() and mean[2] == 45
    assert all(v.dtype == torch.float64 for v in run.measured.values())


def test_bits_are_sums_and_strength_is_a_mean():
    """Over levels of different size, windows and calls."""
    neck = make_neck('Token', 2)
    small, large = make_feature('wxyz', 3).mT, make_feature('wxyz', 9).mT
    operation = Quantization('one-step', scale=0.3)
    with torch.no_grad(), neck.run(operation, images='ab') as run:
        outputs = [neck.apply_levels([small, large]) for _ in range(2)]
    measured = run.measured
    per_image = CHANNELS * 2 * 2 * (3 + 9)
    assert measured['elements'].tolist() == [per_image] * 2
    rows = torch.stack([
        nrmse(y - x, x) for out in outputs for x, y in zip((small, large), out)
    ])
    torch.testing.assert_close(measured['nrmse'].float(),
                               rows.view(4, 2, 2).mean((0, 2)))
    single = [apply(operation, neck, small[[i]], large[[i]])[1].measured
              for i in range(4)]
    bits = torch.cat([m['bits'] for m in single])
    torch.testing.assert_close(measured['bits'], 2 * bits.view(2, 2).sum(1))


# ---------------------------------------------------------------- odd batches
@pytest.mark.parametrize('operation', OPERATIONS, ids=NAMES)
@pytest.mark.parametrize('images', ['', 'ab'])
def test_no_row_at_all(operation, images):
    neck = make_neck()
    x = torch.zeros(0, CHANNELS, 3, 3)
    (out, ), run = apply(
        operation, neck, x, images=list(images) or None,
        sensitivity=sensitivity_of([x]))
    assert out.shape == x.shape and run.visited == {0}
    assert run.batch_size == len(images) and not run.faults.any()
    check_faults([run])
    assert all(v.shape == (len(images), ) for v in run.measured.values())


def test_before_and_without_a_pass():
    run = Run(Perturbation('gaussian', 1), make_neck())
    assert run.measured == {} and run.faults is None and run.batch_size == 0
    check_faults([run, run])
    check_faults([])


def test_a_function_is_an_operation():
    seen = []

    def noise(feature, level, visit):
        seen.append((level, visit.images.tolist(), visit.neck))
        return feature + uniform_noise(visit.keys, feature.shape[1:],
                                       visit.stream)

    neck = make_neck(levels=2)
    x = make_feature('ab', 2, 3)
    out, run = apply(noise, neck, x, x, images='ab', seed=5)
    assert seen == [(0, [0, 1], neck), (1, [0, 1], neck)]
    keys = image_keys('ab', 5)
    for level in (0, 1):
        expected = x + uniform_noise(keys, (CHANNELS, 2, 3), level)
        assert torch.equal(out[level], expected)
    assert run.measured == {} and run.kept == []


def test_a_host_that_views_its_map_as_tokens():
    """Wherever an operation has left the channels in memory."""
    feature = torch.rand(2, 5, 6, CHANNELS)
    (out, ), _ = apply(
        lambda x, level, visit: x.contiguous() + 1, make_neck(), feature)
    torch.testing.assert_close(
        out.view(2, 30, CHANNELS), feature.view(2, 30, CHANNELS) + 1)


def test_image_ids():
    def sample(**meta):
        return BaseDataElement(metainfo=meta)

    assert image_ids(None, 3) == [0, 1, 2]
    # an id of 0 is an id; MMPretrain and MMSegmentation have other names
    samples = [
        sample(img_id=0), sample(img_id=None),
        sample(sample_idx=7, img_path='x'), sample(img_path='b.png')]
    assert image_ids(samples, 4) == [0, 1, 7, 'b.png']
    assert image_ids(['x', 9], 2) == ['x', 9]
    # wherever the data set lies
    assert image_ids([sample(img_path='/data/set/val/1/b.png')],
                     1) == ['1/b.png']


# --------------------------------------------------------------------- faults
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.5), Quantization('one-step'),
    Quantization('featjnd', bits=0.5), lambda x, level, visit: x * 0 + 1])
def test_a_broken_feature_is_found(operation, value):
    """Also where the operation would hide it."""
    neck = make_neck(levels=3)
    levels = [make_feature('abc', 3, 3) for _ in range(3)]
    _, sound = apply(operation, neck, *levels, images='abc')
    check_faults([sound])
    levels[1][2, 1, 0, 2] = value
    _, run = apply(operation, neck, *levels, images='abc')
    assert run.faults[0].tolist() == [0, 0, 2]  # 1 + the level
    assert not run.faults[:, :2].any()
    for runs in ([run], [sound, run, sound]):
        with pytest.raises(ValueError, match='NaN or infinite values in level '
                           r"1 at split='backbone' \(image c\): the host is "
                           'broken before'):
            check_faults(runs)


def test_a_broken_operation_is_found():
    """A diverged estimator, of the second level."""
    neck = make_neck(levels=2)
    with torch.no_grad():
        neck.estimators[1].level.bias[0] = math.nan
    x = make_feature('ab', 3, 3)
    for operation in (Perturbation('featjnd', 0.5), Quantization('featjnd')):
        _, run = apply(operation, neck, x, x, images='ab')
        assert run.faults.tolist() == [[0, 0], [2, 2]]
        with pytest.raises(ValueError, match=r'made of level 1.*\(image a\)'
                           '.*estimator has diverged'):
            check_faults([run])


def test_one_broken_image_of_a_batch():
    """A feature that breaks the operation is named, not the operation."""
    neck = make_neck()

    def overflow(feature, level, visit):
        return feature * torch.tensor([1., math.inf])[:, None, None, None]

    x = make_feature('ab', 3, 3)
    _, run = apply(overflow, neck, x, images='ab')
    with pytest.raises(ValueError, match=r'made of level 0.*image b'):
        check_faults([run])
    x[0, 0] = math.nan
    _, run = apply(overflow, neck, x, images='ab')
    with pytest.raises(ValueError, match=r'in level 0.*image a\).*the host'):
        check_faults([run])


def test_faults_of_regions_and_padding():
    neck = make_neck()
    x = make_feature('xyz', 3, 3)
    x[1, 0, 0, 0] = math.nan
    _, run = apply(
        Quantization('one-step'), neck, x, owner=[0, 0, 2], images='abc')
    assert run.faults[0].tolist() == [1, 0, 0]
    # what lies beyond an image is nobody's
    levels, content = make_batch('ab')
    for x in levels:
        x[1, :, -1, -1] = math.nan
    outputs, run = apply(
        Quantization('one-step'), make_neck(levels=2), *levels,
        content=content)
    assert not run.faults.any()
    assert all(out.isfinite().all() for out in outputs)


# ---------------------------------------------------- padding that is not sent
def test_what_is_left_out_is_filled_with_padding():
    """Two tokens around a picture are its own as far as its letterbox goes,
    not in what the batch adds; the rest is as an input of padding alone."""
    neck = make_neck()
    x = make_feature(['a', 'b'], 6, 8)
    canvas = {0: make_feature(['canvas'], 6, 8, seed=5)}
    # of the input's 24 x 32 both have 12 x 32; 'a' a letterbox below, to 24
    content = [(12, 32, 24, 32, 24, 32), (12, 32, 24, 32)]
    (value, ), run = apply(Quantization('one-step', scale=1e-3), neck, x,
                           images=['a', 'b'], content=content, canvas=canvas)
    assert run.measured['elements'].tolist() == [
        CHANNELS * 5 * 8, CHANNELS * 3 * 8]
    for i, rows in enumerate((5, 3)):
        torch.testing.assert_close(value[i, :, :rows], x[i, :, :rows],
                                   rtol=0, atol=1e-2)
        assert torch.equal(value[i, :, rows:], canvas[0][0, :, rows:])
    # of another size the middle of the canvas counts, of none at all 0
    for other, expected in (({0: canvas[0][:, :, :, :3]},
                             canvas[0][0, :, 3, 1]), ({}, torch.zeros(4))):
        (value, ), _ = apply(Quantization('one-step', scale=1e-3), neck, x,
                             images=['a', 'b'], content=content, canvas=other)
        assert torch.equal(value[1, :, 5, 7], expected)
    # what does not send anything leaves the padding as it is
    (value, ), _ = apply(Perturbation('gaussian', 0.5), neck, x,
                         images=['a', 'b'], content=content)
    assert torch.equal(value[:, :, 3:], x[:, :, 3:])
