"""The paired bootstrap over images, against the evaluators' own numbers."""
import math
import sys
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import coco_metric
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample
from pycocotools.cocoeval import COCOeval

from mmfeatjnd.evaluation.bootstrap import (
    correct_answers,
    image_weights,
    interval,
    keeping_images,
    weighted_average_precision,
    weighted_mean,
)

IMAGES, CLASSES = 12, 4


def box(rng):
    return [*rng.uniform(0, 40, 2).tolist(), *rng.uniform(5, 60, 2).tolist()]


def moved(rng, values, by):
    return [v + d for v, d in zip(values, rng.normal(0, by, 4))]


@pytest.fixture(scope='module')
def made_up():
    """Objects, among them crowds, and detections: none in image 3, none of
    either in image 5; no object of the last class, and none detected of the
    one before."""
    rng = np.random.default_rng(0)
    objects, found = [], []
    for image in range(IMAGES):
        for _ in range(0 if image == 5 else rng.integers(1, 7)):
            label = int(rng.integers(CLASSES - 1))
            where, crowd = box(rng), int(rng.random() < 0.2)
            objects.append(
                dict(image_id=image, category_id=label, bbox=where,
                     area=where[2] * where[3], iscrowd=crowd))
            if image == 3 or label == CLASSES - 2 or rng.random() < 0.25:
                continue
            for _ in range(1 + 3 * crowd):  # what lies in a crowd is ignored
                found.append(
                    dict(image_id=image, category_id=label,
                         bbox=moved(rng, where, 1)))
        for _ in range(0 if image in (3, 5) else 3):
            label = int(rng.choice([0, 1, CLASSES - 1]))
            found.append(dict(image_id=image, category_id=label,
                              bbox=box(rng)))
    # equal scores in different images, but not within one
    number = {}
    for one in found:
        key = one['image_id'], one['category_id']
        number[key] = number.get(key, -1) + 1
        one['score'] = round(0.9 - 0.05 * number[key] - 0.02 * (key[0] % 3), 2)
    assert len({f['score'] for f in found}) < len(found)
    return objects, found


def evaluated(objects, found, images=IMAGES, kind='bbox'):
    """COCOeval of MMDetection's settings, after evaluate."""
    truth = COCO()
    truth.dataset = dict(
        images=[dict(id=i, width=100, height=100) for i in range(images)],
        categories=[dict(id=i, name=str(i)) for i in range(CLASSES)],
        annotations=[dict(o, id=i + 1) for i, o in enumerate(objects)])
    with redirect_stdout(StringIO()):
        truth.createIndex()
        result = coco_metric.COCOeval(truth, truth.loadRes(found), kind)
        result.params.maxDets = [100, 300, 1000]
        result.evaluate()
    return result


def own_map(coco_eval):
    with redirect_stdout(StringIO()):
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval.stats[0]


def repeated(records, weights):
    """The records of a set in which images stand several times."""
    result, number = [], 0
    for image, weight in enumerate(weights):
        for _ in range(int(weight)):
            result += [
                dict(r, image_id=number) for r in records
                if r['image_id'] == image
            ]
            number += 1
    return result


def test_weights_of_one_give_cocos_own(made_up):
    coco_eval = evaluated(*made_up)
    value, = weighted_average_precision(coco_eval, np.ones((1, IMAGES)))
    assert 0.1 < value < 0.9
    assert value == pytest.approx(own_map(coco_eval), abs=1e-12)


def test_of_masks_too(made_up):
    def outlined(records):
        result = []
        for r in records:
            x, y, w, h = r['bbox']
            mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            result.append(dict(r, segmentation=mask))
        return result

    objects, found = made_up
    # a polygon: no crowd
    objects = [dict(o, iscrowd=0) for o in outlined(objects)]
    found = [{k: v for k, v in f.items() if k != 'bbox'}
             for f in outlined(found)]
    import pycocotools.mask as masks
    for one in found:
        code, = masks.frPyObjects(one['segmentation'], 100, 100)
        one['segmentation'] = code
    coco_eval = evaluated(objects, found, kind='segm')
    value, = weighted_average_precision(coco_eval, np.ones((1, IMAGES)))
    assert value == pytest.approx(own_map(coco_eval), abs=1e-12)


def test_drawn_weights_give_that_of_the_repeated_images(made_up):
    weights = image_weights(IMAGES, draws=5)
    values = weighted_average_precision(evaluated(*made_up), weights)
    for one, drawn in zip(values, weights):
        other = evaluated(*(repeated(r, drawn) for r in made_up))
        assert one == pytest.approx(own_map(other), abs=1e-12)
    assert np.ptp(values) > 0.01


def test_a_recall_that_rounding_misses_is_missed():
    def square(i):
        return dict(image_id=0, category_id=0, bbox=[20 * i, 0, 9, 9],
                    area=81, iscrowd=0)

    objects = [square(i) for i in range(10)]
    found = [dict(square(i), score=0.9) for i in range(7)]
    coco_eval = evaluated(objects, found, images=1)
    value, = weighted_average_precision(coco_eval, np.ones((1, 1)))
    assert value == pytest.approx(own_map(coco_eval), abs=1e-12)
    assert value == pytest.approx(70 / 101)  # and not 71


def test_the_hundred_surest_count_as_in_cocos():
    objects = [dict(image_id=0, category_id=0, bbox=[0, 0, 9, 9], area=81,
                    iscrowd=0)]
    wrong = dict(image_id=0, category_id=0, bbox=[50, 50, 9, 9])
    found = [dict(wrong, score=0.9 - 0.001 * i) for i in range(120)]
    found += [dict(wrong, bbox=[0, 0, 9, 9], score=0.1)]
    coco_eval = evaluated(objects, found, images=1)
    value, = weighted_average_precision(coco_eval, np.ones((1, 1)))
    assert value == own_map(coco_eval) == 0


def test_draws_without_an_object_and_sets_without_one(made_up):
    objects, found = made_up
    first = [o for o in objects if o['image_id'] == 0]
    weights = np.ones((2, IMAGES))
    weights[1, 0] = 0
    values = weighted_average_precision(evaluated(first, found), weights)
    assert np.isfinite(values[0]) and math.isnan(values[1])
    crowds = [dict(o, iscrowd=1) for o in first]
    values = weighted_average_precision(evaluated(crowds, found), weights)
    assert np.isnan(values).all()


def test_weights_of_another_number_of_images(made_up):
    with pytest.raises(ValueError, match='3 weights for 12 images'):
        weighted_average_precision(evaluated(*made_up), np.ones((1, 3)))


def test_image_weights():
    weights = image_weights(7, draws=50)
    assert weights.shape == (51, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 7).all() and (weights >= 0).all()
    assert (weights == weights.round()).all() and weights.max() > 1
    np.testing.assert_array_equal(weights, image_weights(7, draws=50))
    assert (weights != image_weights(7, draws=50, seed=1)).any()
    assert weights[1:].mean(0) == pytest.approx(np.ones(7), abs=0.5)


def test_weighted_mean():
    values = np.array([1., 2., math.nan, 6.])
    weights = np.array([[1, 1, 1, 1], [0, 3, 1, 0], [0, 0, 4, 0]])
    found = weighted_mean(values, weights)
    assert found[:2] == pytest.approx([3, 2])
    assert math.isnan(found[2])


def test_interval():
    assert interval(np.arange(101.) - 1)[:] == pytest.approx(
        (-1, 0.025 * 99, 0.975 * 99))
    found = interval([1., *[2.] * 90, *[math.inf] * 10])
    assert found == (1, 2, math.inf)
    found = interval([1., *[-math.inf] * 10, *[2.] * 80, *[math.nan] * 10])
    assert found == (1, -math.inf, 2)
    assert np.isnan(interval([1., math.nan])[1:]).all()
    assert np.isnan(interval([1.])[1:]).all()  # no draws


@pytest.mark.parametrize('field', ['pred_score', 'pred_label'])
def test_correct_answers_are_mmpretrains(field):
    rng = np.random.default_rng(0)
    metric = Accuracy(topk=(1, ))
    scores = torch.from_numpy(rng.random((9, 4)))
    labels = rng.integers(4, size=9)
    for score, label in zip(scores, labels):
        sample = DataSample().set_gt_label(int(label))
        if field == 'pred_score':
            sample.set_pred_score(score)
        else:
            sample.set_pred_label(int(score.argmax()))
        metric.process({}, [sample.to_dict()])
    found = correct_answers(metric.results)
    own = metric.evaluate(9)['accuracy/top1']
    assert found.shape == (9, ) and set(found) == {0, 100}
    assert found.mean() == pytest.approx(own, rel=1e-5)
    np.testing.assert_array_equal(
        found, 100 * (scores.numpy().argmax(1) == labels))


def test_keeping_images_restores_what_it_replaced(made_up):
    original = coco_metric.COCOeval
    assert original is COCOeval
    with keeping_images() as kept:
        assert coco_metric.COCOeval is not original
        coco_eval = evaluated(*made_up)
    assert coco_metric.COCOeval is original
    assert kept.coco == {'coco/bbox_mAP': coco_eval}
    evaluated(*made_up)
    assert kept.coco == {'coco/bbox_mAP': coco_eval}
    with pytest.raises(RuntimeError, match='some'), keeping_images():
        raise RuntimeError('some error')
    assert coco_metric.COCOeval is original


def test_recall_of_proposals_is_no_precision(made_up):
    truth = evaluated(*made_up)
    with keeping_images() as kept, redirect_stdout(StringIO()):
        proposals = coco_metric.COCOeval(truth.cocoGt, truth.cocoDt, 'bbox')
        proposals.params.useCats = 0
        proposals.evaluate()
    assert not kept.coco


def test_without_mmdetection_nothing_is_kept(monkeypatch):
    monkeypatch.delitem(sys.modules, coco_metric.__name__)
    with keeping_images() as kept:
        assert coco_metric.COCOeval is COCOeval
    assert not kept.coco


def test_draws_of_all_that_was_kept(made_up):
    weights = image_weights(IMAGES, draws=3)
    with keeping_images() as kept:
        coco_eval = evaluated(*made_up)
    kl = np.arange(float(IMAGES))
    draws = kept.draws(dict(kl=kl), weights)
    assert list(draws) == ['coco/bbox_mAP', 'kl']
    assert draws['coco/bbox_mAP'][0] == pytest.approx(own_map(coco_eval))
    assert draws['kl'] == pytest.approx(weights @ kl / IMAGES)
