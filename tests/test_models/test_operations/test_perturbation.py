from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmfeatjnd.functional import (
    DISTORTIONS,
    gaussian_noise,
    image_keys,
    nrmse,
    participation_ratio,
)
from mmfeatjnd.models import ConvEstimator, Perturbation, image_ids


def make_neck(mode='signed'):
    torch.manual_seed(0)
    estimator = ConvEstimator(4, hidden_channels=8, mode=mode).eval()
    return SimpleNamespace(split='backbone', estimator_of=lambda level:
                           estimator)


def make_samples(*ids):
    return [BaseDataElement(metainfo=dict(img_id=i)) for i in ids]


def make_feature(*ids):
    return 2 + gaussian_noise(image_keys(ids, 77), (4, 5, 6))


@pytest.mark.parametrize('definition', ['rms', 'std', 'range'])
@pytest.mark.parametrize('name', sorted(DISTORTIONS))
@pytest.mark.parametrize('mode', ['signed', 'envelope'])
def test_strength_is_what_was_asked(name, definition, mode):
    operation = Perturbation(name, 0.3, definition)
    feature = make_feature(5, 6)
    sensitivity = {0: feature.square(), 1: feature.square()}
    operation.start(make_samples(5, 6), 2, sensitivity)
    neck = make_neck(mode)
    with torch.no_grad():
        out = [operation(feature, level, neck) for level in (0, 1)]
    target = torch.full((2, ), 0.3)
    for x in out:
        torch.testing.assert_close(
            nrmse(x - feature, feature, definition), target, rtol=1e-4,
            atol=0)
    measured = operation.measured()
    assert list(measured) == ['nrmse', 'participation_ratio']
    torch.testing.assert_close(measured['nrmse'], target)
    ratio = sum(participation_ratio(x - feature) for x in out) / 2
    torch.testing.assert_close(
        measured['participation_ratio'], ratio, rtol=1e-3, atol=0)


@pytest.mark.parametrize('name', sorted(DISTORTIONS))
def test_an_image_is_distorted_alike_in_any_batch(name):
    neck = make_neck('envelope')
    operation = Perturbation(name, 0.5, seed=3)

    def run(*ids):
        feature = make_feature(*ids)
        operation.start(make_samples(*ids), len(ids), {2: feature.square()})
        with torch.no_grad():
            return operation(feature, 2, neck)

    batch = run('a', 'b', 'c')
    for i, name in enumerate('abc'):
        torch.testing.assert_close(run(name)[0], batch[i])
    torch.testing.assert_close(run('c', 'a')[1], batch[0])


def test_the_seed_changes_the_noise():
    feature, results = make_feature(0), []
    for seed in (0, 0, 1):
        operation = Perturbation('gaussian', 0.5, seed=seed)
        operation.start(make_samples(0), 1)
        results.append(operation(feature, 0, make_neck()))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_several_views_of_an_image():
    operation = Perturbation('gaussian', 0.5)
    operation.start(make_samples(1, 2), 2)
    views = torch.ones(4, 4, 5, 6)
    out = operation(views, 0, make_neck())
    assert torch.equal(out[:2], out[2:])
    assert not torch.equal(out[0], out[1])
    with pytest.raises(RuntimeError, match='2 images.*batch of 3'):
        operation(views[:3], 0, make_neck())


def test_start_is_needed():
    with pytest.raises(RuntimeError, match='0 images'):
        Perturbation('gaussian', 0.5)(make_feature(0), 0, make_neck())


def test_start_forgets_the_batch_before():
    operation = Perturbation('gaussian', 0.5)
    operation.start(make_samples(1, 2), 2)
    operation(make_feature(1, 2), 0, make_neck())
    assert operation.levels == {0}
    operation.start(make_samples(3), 1)
    assert operation.measured() == {} and operation.levels == set()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_broken_features(value):
    operation = Perturbation('gaussian', 0.5)
    operation.start(None, 1)
    feature = make_feature(0)
    feature[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match='NaN or infinite.*level 2.*split'):
        operation(feature, 2, make_neck())


@pytest.mark.parametrize('kwargs, message', [
    (dict(distortion='salt'), "'gaussian'.*but got 'salt'"),
    (dict(strength=0), 'must be positive'),
    (dict(strength=-0.5), 'must be positive'),
    (dict(strength=float('nan')), 'must be positive'),
    (dict(strength=float('inf')), 'finite'),
    (dict(definition='max'), "definition must be one of.*'max'"),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(**dict(dict(distortion='gaussian', strength=1), **kwargs))


def test_image_ids():
    assert image_ids(None, 3) == [0, 1, 2]
    # an id of 0 is an id; MMPretrain and MMSegmentation have other names
    samples = make_samples(0, None) + [
        BaseDataElement(metainfo=dict(sample_idx=7, img_path='x')),
        BaseDataElement(metainfo=dict(img_path='b.png')),
    ]
    assert image_ids(samples, 4) == [0, 1, 7, 'b.png']
