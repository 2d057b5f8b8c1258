import math

import numpy as np
import pytest

from mmfeatjnd.evaluation import (
    clean_metrics,
    cost_ratios,
    headline,
    plot,
    summarize,
    to_markdown,
    tolerated_strength,
)


def row(distortion, nrmse, value, seed=0, **metrics):
    return dict(
        distortion=distortion,
        nrmse=nrmse,
        nrmse_measured=nrmse,
        participation_ratio=0.5,
        seed=seed,
        metrics=dict(acc=value, **metrics))


ROWS = [
    row('clean', 0.0, 80.0),
    row('gaussian', 0.5, 78.0),
    row('gaussian', 0.5, 76.0, seed=1),
    row('gaussian', 1.0, 60.0),
    row('gaussian', 1.0, 60.0, seed=1),
    row('featjnd', 1.0, 75.0),
    row('featjnd', 0.5, 79.0),
]


def test_headline_and_clean():
    assert headline(ROWS) == 'acc'
    assert clean_metrics(ROWS) == {'acc': 80.0}


def test_summary_sorts_and_takes_the_sample_deviation():
    curves = summarize(ROWS)
    assert [p.nrmse for p in curves['featjnd']] == [0.5, 1.0]
    first = curves['gaussian'][0]
    assert first.mean == 77.0
    assert first.std == pytest.approx(math.sqrt(2))  # of 78 and 76
    assert first.num_seeds == 2
    assert curves['featjnd'][0].std == 0


def test_tolerated_strength_interpolates_from_the_clean_metric():
    curves = summarize(ROWS)
    # 80 -> 77 over 0.5: 79.2 lies 0.8 / 3 of the way
    assert tolerated_strength(curves['gaussian'],
                              80.0) == pytest.approx(0.5 * 0.8 / 3)
    # 79.2 lies before the first point of 79
    assert tolerated_strength(curves['featjnd'],
                              80.0) == pytest.approx(0.5 * 0.8)
    # 5 %: 76 lies between 79 (0.5) and 75 (1.0)
    assert tolerated_strength(curves['featjnd'], 80.0,
                              0.05) == pytest.approx(0.5 + 0.5 * 3 / 4)
    assert tolerated_strength(curves['featjnd'], 80.0, 0.5) == math.inf


def test_cost_ratio_only_where_the_reference_costs_enough():
    # Gaussian costs 3 of 80 (3.75 %) and 20 of 80; FeatJND 1 and 5
    assert cost_ratios(ROWS) == pytest.approx({0.5: 1 / 3, 1.0: 0.25})
    assert cost_ratios(ROWS, least=0.1) == pytest.approx({1.0: 0.25})


def test_markdown_has_every_point():
    text = to_markdown(ROWS)
    assert '| gaussian | 77 ± 1.4 | 60 ± 0 | 0.50 | 0.13 |' in text
    assert '| featjnd | 79 ± 0 | 75 ± 0 | 0.50 | 0.40 |' in text


def test_plot_writes_a_picture(tmp_path):
    import cv2
    plot(ROWS, tmp_path / 'curve.png')
    image = cv2.imread(str(tmp_path / 'curve.png'))
    assert image.shape[0] > 300 and np.ptp(image) > 200
