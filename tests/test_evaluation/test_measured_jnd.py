"""Agreement of predicted and measured thresholds, by hand."""
import math

import pytest
from PIL import Image

from mmfeatjnd.evaluation.measured_jnd import (
    plot,
    responses,
    scores,
    to_markdown,
)


def threshold(measured, relation='', unit='token', nats=0.01, **predicted):
    return dict(unit=unit, level=0, index=0, nats=nats, log2=measured,
                relation=relation, predicted=predicted)


def image(name, *thresholds):
    return dict(image=name, thresholds=list(thresholds))


IMAGES = [
    image('a', *[threshold(float(i), fisher=i - 1.0, static=float(i % 2))
                 for i in range(8)],
          threshold(1.0, unit='image', fisher=0.0)),
    image('b', *[threshold(float(i), fisher=float(-i), static=0.0)
                 for i in range(8)],
          threshold(7.0, '>', fisher=-20.0, static=0.0),
          threshold(3.0, unit='image', fisher=0.0)),
]


def test_scores():
    by = {(r['unit'], r['predictor']): r for r in scores(IMAGES, draws=20)}
    assert list(by) == [('token', 'fisher'), ('token', 'static'),
                        ('image', 'fisher')]
    fisher = by['token', 'fisher']
    assert fisher['count'] == 17
    assert fisher['censored_share'] == pytest.approx(1 / 17)
    # one image in the right order, the other in the reverse
    assert fisher['spearman_within_image'] == pytest.approx(
        (1 + -1) / 2, abs=0.01)
    # 1 of image a, 2 i of image b; not what is beyond
    errors = [1] * 8 + [2 * i for i in range(8)]
    assert fisher['bias_log2'] == 1
    assert fisher['rmse_log2'] == pytest.approx(
        math.sqrt(sum(e * e for e in errors) / 16))
    low, high = fisher['spearman_interval']
    assert low < fisher['spearman'] < high
    whole = by['image', 'fisher']
    assert whole['bias_log2'] == 2
    # two images whose predictions are equal: nothing to rank
    assert math.isnan(whole['spearman'])
    assert whole['spearman_within_image'] is None


def test_responses():
    images = [
        dict(response=[
            dict(log2=x, measured=m * 4.0**x,
                 predicted=dict(fisher=0.01 * 4.0**x, static=1.0))
            for x in (-1.0, 0.0, 3.0)
        ]) for m in (0.02, 0.04)
    ]
    rows = responses(images)  # what is predicted beyond is left out
    assert [r['log2'] for r in rows] == [-1, 0]
    assert [r['nats'] for r in rows] == pytest.approx([0.0025, 0.01])
    assert [r['measured_nats'] for r in rows] == pytest.approx([0.0075, 0.03])
    assert '| +0.0 | `fisher` | 0.01 | 0.03 |' in to_markdown(rows)


def test_a_censored_threshold_counts_in_ranks():
    rows = [threshold(float(i), fisher=float(i)) for i in range(7)]
    below = [*rows, threshold(7.0, '>', fisher=-9.0)]
    above = [*rows, threshold(7.0, '>', fisher=9.0)]
    by = [scores([image('a', *r)], draws=2)[0]['spearman']
          for r in (below, above)]
    assert by[1] == 1 and by[0] < 0.5


def test_table_and_picture(tmp_path):
    rows = scores(IMAGES, draws=5)
    table = to_markdown(rows)
    assert table.count('\n') == len(rows) + 1 + table.endswith('\n')
    assert '| token | 0.01 | `fisher` | 17 | 6% |' in table
    plot(IMAGES, tmp_path / 'a.png')
    assert Image.open(tmp_path / 'a.png').size[0] > 500
