import pytest
import torch

from mmfeatjnd.functional import (
    gaussian_noise,
    image_keys,
    nrmse,
    participation_ratio,
)
from mmfeatjnd.models import (
    FeatJNDNeck,
    Perturbation,
    build_distortion,
    distortion_names,
)

#: Those of a task metric have tests of their own.
NAMES = [n for n in distortion_names() if build_distortion(n).metric is None]


def make_neck(mode='signed', levels=1):
    torch.manual_seed(0)
    estimator = dict(
        type='mmfeatjnd.ConvEstimator', hidden_channels=8, mode=mode)
    return FeatJNDNeck(estimator, in_channels=[4] * levels).eval()


def make_feature(*ids):
    return 2 + gaussian_noise(image_keys(ids, 77), (4, 5, 6))


def apply(operation, neck, *features, **kwargs):
    with torch.no_grad(), neck.run(operation, **kwargs) as run:
        return neck.apply_levels(features), run


@pytest.mark.parametrize('definition', ['rms', 'std', 'range'])
@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('mode', ['signed', 'envelope', 'sensitivity'])
def test_strength_is_what_was_asked(name, definition, mode):
    if mode not in build_distortion(name).modes:
        return
    feature = make_feature(5, 6)
    out, run = apply(
        Perturbation(name, 0.3, definition),
        make_neck(mode, 2),
        feature,
        feature,
        images=[5, 6],
        detections=[torch.tensor([[0.0, 0.0, 0.5, 0.5]])] * 2,
        sensitivity={i: [feature.square()] for i in (0, 1)})
    target = torch.full((2, ), 0.3)
    for x in out:
        torch.testing.assert_close(
            nrmse(x - feature, feature, definition), target, rtol=1e-4,
            atol=0)
    measured = run.measured
    assert list(measured) == ['nrmse', 'participation_ratio']
    torch.testing.assert_close(measured['nrmse'].float(), target)
    ratio = sum(participation_ratio(x - feature) for x in out) / 2
    torch.testing.assert_close(
        measured['participation_ratio'].float(), ratio, rtol=1e-3, atol=0)


@pytest.mark.parametrize('name', NAMES)
def test_an_image_is_distorted_alike_in_any_batch(name):
    neck = make_neck('sensitivity', 3)
    operation = Perturbation(name, 0.5, seed=3)

    def run(*ids):
        feature = make_feature(*ids)
        sensitivity = {i: [feature.square()] for i in range(3)}
        return apply(
            operation, neck, feature, feature, feature, images=ids,
            detections=[torch.tensor([[0.0, 0.0, 0.5, 0.5]])] * len(ids),
            sensitivity=sensitivity)[0][2]

    batch = run('a', 'b', 'c')
    for i, image in enumerate('abc'):
        torch.testing.assert_close(run(image)[0], batch[i])
    torch.testing.assert_close(run('c', 'a')[1], batch[0])


def test_the_seed_changes_the_noise():
    feature = make_feature(0)
    a, b, c, d = (
        apply(Perturbation('gaussian', 0.5, seed=seed), make_neck(), feature,
              images=[0], **kwargs)[0][0]
        for seed, kwargs in ((0, {}), (0, {}), (1, {}), (1, dict(seed=0))))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(a, d)  # the seed of a run goes before


def test_levels_get_different_noise():
    feature = make_feature(0)
    a, b = apply(
        Perturbation('gaussian', 0.5), make_neck(levels=2), feature,
        feature)[0]
    assert not torch.equal(a, b)


def test_the_operation_keeps_nothing_of_a_batch():
    """A setting alone: one object may serve any number of runs."""
    operation = Perturbation('gaussian', 0.5)
    before = dict(vars(operation))
    feature = make_feature(1, 2)
    first, _ = apply(operation, make_neck(), feature, images=[1, 2])
    assert vars(operation) == before
    _, run = apply(operation, make_neck(), feature[:1], images=[3])
    assert run.measured['nrmse'].shape == (1, )
    again, _ = apply(operation, make_neck(), feature, images=[1, 2])
    assert torch.equal(first[0], again[0])


@pytest.mark.parametrize('value', [6e4, 65504.])
def test_half_precision_stays_finite(value):
    """And what is measured is what the host gets."""
    feature = torch.full((2, 4, 5, 6), value).half()
    feature[1] = 1
    (out, ), run = apply(Perturbation('gaussian', 0.5), make_neck(), feature)
    assert out.dtype == torch.half and out.isfinite().all()
    assert (out[0] == 65504).float().mean() > 0.2  # the end of the range
    actual = nrmse(out.float() - feature.float(), feature)
    torch.testing.assert_close(run.measured['nrmse'].float(), actual)
    assert actual[0] < 0.45 and abs(actual[1] - 0.5) < 1e-3
    assert not run.faults.any()


def test_an_image_without_energy_is_left_alone():
    feature = make_feature(5, 6)
    feature[1] = 0
    (out, ), run = apply(Perturbation('gaussian', 0.5), make_neck(), feature)
    assert not out[1].any() and not run.faults.any()
    assert run.measured['nrmse'].tolist() == [pytest.approx(0.5), 0]


def test_check():
    neck = make_neck()
    for name in NAMES:
        operation = Perturbation(name, 1)
        if not build_distortion(name).needs_jnd:
            operation.check(neck)
            continue
        with pytest.raises(ValueError, match=f"'{name}'.*needs a trained"):
            operation.check(neck)
    neck.estimators[0].initial.fill_(1)
    for name in NAMES:
        if 'signed' in build_distortion(name).modes:
            Perturbation(name, 1).check(neck)
            continue
        with pytest.raises(ValueError, match=f"'{name}'.*of mode 'sensit"):
            Perturbation(name, 1).check(neck)
    for kwargs in (dict(definition='channel'), dict(valid=True)):
        with pytest.raises(ValueError, match='needs a trained'):
            Perturbation('gaussian', 1, **kwargs).check(make_neck())


def test_every_level_that_is_read_needs_its_estimator():
    neck, operation = make_neck(levels=2), Perturbation('featjnd', 1)
    neck.estimators[0].initial.fill_(1)
    operation.check(neck)  # nobody knows yet whether anything reads level 1
    neck.read_levels = (0, )
    operation.check(neck)
    neck.read_levels = (0, 1)
    with pytest.raises(ValueError, match='needs a trained estimator'):
        operation.check(neck)


def test_summary_and_row():
    operation = Perturbation('gaussian', 0.5, seed=3)
    summary = operation.summary(
        dict(
            nrmse=torch.tensor([0.25, 0.75, float('nan')]),
            participation_ratio=torch.tensor([0.5, 0.25, float('nan')])))
    # an image without regions has nothing to measure
    assert summary == dict(nrmse=0.5, participation_ratio=0.375)
    assert operation.row(summary) == dict(
        distortion='gaussian', definition='rms', valid=False, nrmse=0.5,
        nrmse_measured=0.5,
        participation_ratio=0.375, seed=3)


@pytest.mark.parametrize('kwargs, message', [
    (dict(distortion='salt'), "'gaussian'.*but got 'salt'"),
    (dict(nrmse=0), 'must be positive'),
    (dict(nrmse=-0.5), 'must be positive'),
    (dict(nrmse=float('nan')), 'must be positive'),
    (dict(nrmse=float('inf')), 'finite'),
    (dict(definition='max'), "definition must be one of.*'max'"),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(**dict(dict(distortion='gaussian', nrmse=1), **kwargs))
