"""How sure a metric of some images is: the paired bootstrap over images.

Every draw takes the images of the test set anew, with repetitions. With the
same draws for two settings, the spread of their difference leaves out what
makes some images harder than others.
"""
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np
import torch


class Interval(NamedTuple):
    """A value and its 95 % interval.

    Attributes:
        value (float): Of the images as they are.
        low (float): 2.5th percentile over the draws.
        high (float): 97.5th percentile.
    """
    value: float
    low: float
    high: float


def image_weights(images: int, draws: int = 200, seed: int = 0) -> np.ndarray:
    """How often every draw takes each image.

    Args:
        images (int): Number of images N.
        draws (int): Number of draws D. Defaults to 200.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        np.ndarray: (1 + D, N); the first row takes each image once.

    Example:
        >>> image_weights(3, draws=2).sum(1)
        array([3., 3., 3.])
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, [1 / images] * images, draws)
    return np.concatenate([np.ones((1, images)), drawn])


def interval(values: Sequence[float]) -> Interval:
    """What the draws of a value say; the first is of the images as they are.

    NaN counts for nothing. With infinite values the interval ends at one of
    the draws, so that none is made up between them.

    Example:
        >>> interval([1.0, 0.0, 2.0])
        Interval(value=1.0, low=0.05, high=1.95)
    """
    values = np.asarray(values, float)
    draws = values[1:][~np.isnan(values[1:])]
    if not len(draws):
        return Interval(float(values[0]), np.nan, np.nan)
    ends = ('lower', 'higher') if np.isinf(draws).any() else ('linear', ) * 2
    low, high = (
        round(float(np.percentile(draws, share, method=end)), 10)
        for share, end in zip((2.5, 97.5), ends))
    return Interval(float(values[0]), low, high)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the images of every draw; NaN counts for nothing, and is the
    mean of a draw that has nothing else.

    Args:
        values (np.ndarray): (N,).
        weights (np.ndarray): (1 + D, N), see :func:`image_weights`.

    Returns:
        np.ndarray: (1 + D,).

    Example:
        >>> weighted_mean(np.array([0.0, 1.0]), np.array([[1, 1], [0, 2]]))
        array([0.5, 1. ])
    """
    known = np.isfinite(values)
    with np.errstate(invalid='ignore'):
        return weights[:, known] @ values[known] / weights[:, known].sum(1)


#: Where COCO's precision is read.
_RECALLS = np.linspace(0, 1, 101)
#: Detections of a class in an image that COCO's mAP counts, whatever else is
#: asked of it.
_MOST = 100


def weighted_average_precision(coco_eval: Any,
                               weights: np.ndarray) -> np.ndarray:
    """COCO's mAP over all areas, of every draw.

    It is that of a set in which an image stands as often as its weight says,
    one beside the other, but for equal scores of one class within an image
    that is drawn several times: their order is nobody's.

    Args:
        coco_eval (COCOeval): After its ``evaluate``; the images of its
            parameters, in their order, are those of the weights.
        weights (np.ndarray): (1 + D, N), see :func:`image_weights`.

    Returns:
        np.ndarray: (1 + D,), in [0, 1]; the first is COCO's own. NaN where no
        image with an object is drawn.
    """
    params = coco_eval.params
    number, areas = len(params.imgIds), len(params.areaRng)
    if weights.shape[1] != number:
        raise ValueError(f'{weights.shape[1]} weights for {number} images')
    found = np.empty((len(params.catIds), areas, number), object)
    found.reshape(-1)[:] = coco_eval.evalImgs
    precisions = []
    for row in found[:, 0]:  # one class, all areas
        value = _precision_of_class(row, weights)
        if value is not None:
            precisions.append(value)
    if not precisions:
        return np.full(len(weights), np.nan)
    # over the classes that a draw has objects of
    known = np.isfinite(precisions)
    with np.errstate(invalid='ignore'):
        return np.where(known, precisions, 0).sum(0) / known.sum(0)


def _precision_of_class(row: Sequence, weights: np.ndarray):
    """(1 + D,): mean over thresholds and recalls, or None of a class without
    any object."""
    objects = np.array([
        0 if r is None else (np.asarray(r['gtIgnore']) == 0).sum()
        for r in row
    ])
    if not objects.any():
        return None
    total = weights @ objects  # (1 + D,)
    some = [(i, r) for i, r in enumerate(row) if r is not None]
    scores = np.concatenate([r['dtScores'][:_MOST] for _, r in some])
    image = np.concatenate(
        [np.full(len(r['dtScores'][:_MOST]), i) for i, r in some])
    order = np.argsort(-scores, kind='mergesort')  # as COCO's
    right, ignored = (
        np.concatenate([r[name][:, :_MOST] for _, r in some], 1)[:, order] != 0
        for name in ('dtMatches', 'dtIgnore'))
    weight = torch.from_numpy(weights[:, image[order].astype(int)])
    asked = torch.from_numpy(_RECALLS).expand(len(weights), -1).contiguous()
    whole = torch.from_numpy(total)[:, None]
    result = torch.zeros(len(weights), dtype=torch.float64)
    for hit, ignore in zip(torch.from_numpy(right), torch.from_numpy(ignored)):
        counted = weight * ~ignore
        hits = (counted * hit).cumsum(1)
        precision = hits / (counted.cumsum(1) + np.spacing(1))
        # the best that is to come
        precision = precision.flip(1).cummax(1).values.flip(1) if len(
            hit) else precision
        padded = torch.cat([precision, precision.new_zeros(len(hits), 1)], 1)
        # with COCO's own rounding: 7 of 10 are not its recall of 0.7
        at = torch.searchsorted((hits / whole).contiguous(), asked)
        result += padded.gather(1, at).mean(1)
    result = (result / len(right)).numpy()
    return np.where(total > 0, result, np.nan)


class Kept:
    """What evaluators computed on the way to their metrics, image by image.

    Attributes:
        coco (dict): COCOeval by the name of the metric that it gives.
    """

    def __init__(self) -> None:
        self.coco: Dict[str, Any] = {}

    def draws(self, per_image: Dict[str, np.ndarray],
              weights: np.ndarray) -> Dict[str, np.ndarray]:
        """Every metric of which the images are known, of every draw.

        Args:
            per_image (dict[str, np.ndarray]): (N,) by name: metrics that are
                means over the images.
            weights (np.ndarray): See :func:`image_weights`.

        Returns:
            dict[str, np.ndarray]: (1 + D,) by name.
        """
        result = {
            name: weighted_average_precision(found, weights)
            for name, found in self.coco.items()
        }
        result.update((name, weighted_mean(values, weights))
                      for name, values in per_image.items())
        return result


@contextmanager
def keeping_images() -> Iterator[Kept]:
    """Inside, what COCO's evaluation finds of each image is kept.

    MMDetection's metric makes a COCOeval, prints what it says and forgets it.
    """
    kept = Kept()
    module = sys.modules.get('mmdet.evaluation.metrics.coco_metric')
    if module is None:
        yield kept
        return
    original = module.COCOeval

    class Keeping(original):

        def evaluate(self):
            super().evaluate()
            if not self.params.useCats:  # recall of proposals
                return
            kept.coco[f'coco/{self.params.iouType}_mAP'] = self

    module.COCOeval = Keeping
    try:
        yield kept
    finally:
        module.COCOeval = original


def correct_answers(results: List[Any]) -> np.ndarray:
    """Whether a classifier's first answer is right, of each image.

    Args:
        results (list): What MMPretrain's ``Accuracy`` keeps of each batch or
            image: dicts with ``pred_score`` or ``pred_label``, and
            ``gt_label``.

    Returns:
        np.ndarray: (N,), 0 or 100: percent.
    """
    right = []
    for result in results:
        label = result['pred_score'].argmax(
            -1) if 'pred_score' in result else result['pred_label']
        right.append(float((label == result['gt_label']).reshape(-1)[0]))
    return 100 * np.array(right)
