import math

import numpy as np
import pytest

from mmfeatjnd.evaluation import (
    UNKNOWN,
    Bounded,
    clean_metrics,
    headline,
)
from mmfeatjnd.evaluation.curve import (
    cost_ratios,
    plot,
    plot_losses,
    relative_losses,
    rows_of,
    settings_of,
    strength_table,
    summarize,
    to_markdown,
    tolerated_nrmse,
    tolerated_nrmse_ratio,
)


def row(distortion, nrmse, value, seed=0, metric='acc'):
    return dict(
        distortion=distortion,
        nrmse=nrmse,
        nrmse_measured=nrmse,
        participation_ratio=0.5,
        seed=seed,
        metrics={} if value is None else {metric: value})


ROWS = [
    row('clean', 0.0, 80.0),
    row('gaussian', 0.5, 79.0),
    row('gaussian', 0.5, 79.6, seed=1),
    row('gaussian', 0.25, 80.0),
    row('gaussian', 0.25, 80.0, seed=1),
    row('gaussian', 1.0, 60.0),
    row('gaussian', 1.0, 62.0, seed=1),
    row('featjnd', 1.0, 75.0),
    row('featjnd', 0.5, 80.2),
]


def test_headline_and_clean():
    assert headline(ROWS) == 'acc'
    assert clean_metrics(ROWS) == {'acc': 80.0}
    with pytest.raises(ValueError, match='clean host'):
        clean_metrics(ROWS[1:])
    with pytest.raises(ValueError, match='test_evaluator'):
        headline([row('clean', 0., None)])


def test_headline_skips_what_is_not_defined():
    clean = row('clean', 0., None)
    clean['metrics'] = {'a': math.nan, 'b': None, 'c': 0.5, 'd': 0.6}
    assert headline([clean]) == 'c'
    clean['metrics'] = {'a': math.nan, 'b': None}
    assert headline([clean]) == 'a'


def test_summary_sorts_and_takes_the_sample_deviation():
    curves = summarize(ROWS)
    assert [p.nrmse for p in curves['featjnd']] == [0.5, 1.0]
    point = curves['gaussian'][1]
    assert point.mean == pytest.approx(79.3)
    assert point.std == pytest.approx(0.6 / math.sqrt(2))  # of 79 and 79.6
    assert point.num_seeds == 2
    assert curves['featjnd'][0].std == 0
    # what was measured once is the same for every seed
    other = summarize(ROWS, seed=1)
    assert [p.mean for p in other['gaussian']] == [80, 79.6, 62]
    assert [p.mean for p in other['featjnd']] == [80.2, 75]


def test_tolerated_nrmse_is_the_mean_of_the_seeds_own():
    # 79.2 between 80 (0.25) and 79 (0.5); between 79.6 (0.5) and 62 (1)
    each = [0.25 + 0.25 * 0.8, 0.5 + 0.5 * 0.4 / 17.6]
    found = tolerated_nrmse(ROWS, 'gaussian')
    assert [found.by_seed[s].value for s in (0, 1)] == pytest.approx(each)
    assert found.value == Bounded(pytest.approx(np.mean(each)))
    assert found.std == pytest.approx(np.std(each, ddof=1))
    # the crossing of the mean curve is another number
    assert found.value.value != pytest.approx(0.25 + 0.25 * 0.8 / 0.7)
    # 80.2 at 0.5, 75 at 1: 79.2 lies 1 / 5.2 of the way
    assert tolerated_nrmse(ROWS).value.value == pytest.approx(
        0.5 + 0.5 / 5.2)
    assert tolerated_nrmse(ROWS, loss=0.5).value == Bounded(1.0, '>')
    assert tolerated_nrmse(ROWS, 'absent').value == UNKNOWN


def test_below_the_least_nrmse_nothing_is_interpolated():
    rows = [ROWS[0], row('gaussian', 0.25, 76.), row('featjnd', 0.25, 79.5),
            row('featjnd', 0.5, 78.9)]
    assert tolerated_nrmse(rows, 'gaussian').value == Bounded(0.25, '<')
    # at least twice 0.25, whatever Gaussian noise does below it
    assert tolerated_nrmse_ratio(rows).value == Bounded(
        pytest.approx(1.5), '>')
    assert '| gaussian | 76 |  | 0.50 | < 0.25 |' in to_markdown(rows)


def test_tolerated_nrmse_ratio_of_each_seed():
    limit = 0.5 + 0.5 / 5.2
    each = [limit / 0.45, limit / (0.5 + 0.2 / 17.6)]
    found = tolerated_nrmse_ratio(ROWS)
    assert found.value == Bounded(pytest.approx(np.mean(each)))
    assert found.std == pytest.approx(np.std(each, ddof=1))


def test_cost_ratio_only_where_the_reference_costs_enough():
    # Gaussian costs 0.7 of 80 at 0.5, and 19 at 1; FeatJND -0.2 and 5
    assert cost_ratios(ROWS) == pytest.approx({1.0: 5 / 19})
    assert cost_ratios(ROWS, least=0.005) == pytest.approx({
        0.5: -0.2 / 0.7,  # better than the clean host: not 0
        1.0: 5 / 19
    })


def test_of_a_metric_that_is_better_when_lower():
    rows = [
        row('clean', 0., 2.0, metric='rmse'),
        row('gaussian', 0.5, 2.01, metric='rmse'),
        row('gaussian', 1.0, 3.0, metric='rmse'),
        row('featjnd', 0.5, 1.9, metric='rmse'),
        row('featjnd', 1.0, 2.25, metric='rmse'),
    ]
    assert cost_ratios(rows) == pytest.approx({1.0: 0.25})
    # 2.02
    assert tolerated_nrmse(rows, 'gaussian').value.value == pytest.approx(
        0.5 + 0.5 * 0.01 / 0.99)
    assert tolerated_nrmse(rows).value.value == pytest.approx(
        0.5 + 0.5 * 0.12 / 0.35)


def test_metrics_that_are_missing_or_not_defined(tmp_path):
    rows = [
        row('clean', 0., 80.),
        row('gaussian', 0.5, 80.),
        row('gaussian', 1.0, None),  # no detection: no metric
        row('featjnd', 0.5, 80.),
        row('featjnd', 0.5, math.nan, seed=1),
        row('featjnd', 1.0, 70.),
        row('featjnd', 1.0, 70., seed=1),
    ]
    assert math.isnan(summarize(rows)['gaussian'][1].mean)
    text = to_markdown(rows)
    assert '| gaussian | 80 | not defined | 0.50 | > 0.50 |' in text
    assert '| featjnd | not defined | 70 ± 0 | 0.50 | ? |' in text
    assert not cost_ratios(rows)
    plot(rows, tmp_path / 'some.png')


@pytest.mark.parametrize('clean', [0., -1., math.nan, None])
def test_a_clean_metric_that_is_not_positive(clean, tmp_path):
    rows = [row('clean', 0., 1.), row('gaussian', 1.0, -5.),
            row('featjnd', 1.0, -3.)]
    rows[0]['metrics']['acc'] = clean
    assert not cost_ratios(rows)
    assert tolerated_nrmse_ratio(rows).value == UNKNOWN
    assert '| featjnd | -3 | 0.50 | ? |' in to_markdown(rows)
    plot(rows, tmp_path / 'none.png')
    assert (tmp_path / 'none.png').stat().st_size > 1000


def test_markdown_has_every_point():
    text = to_markdown(ROWS)
    assert '| distortion | 0.25 | 0.5 | 1 | participation ratio | ' \
        'NRMSE at 1 % loss |' in text
    assert '| gaussian | 80 ± 0 | 79.3 ± 0.42 | 61 ± 1.4 | 0.50 | ' \
        '0.48 ± 0.04 |' in text
    assert '| featjnd |  | 80.2 | 75 | 0.50 | 0.60 ± 0.00 |' not in text
    assert '| featjnd |  | 80.2 | 75 | 0.50 | 0.60 |' in text


@pytest.mark.parametrize('metric', ['acc', 'rmse'])
def test_plot_writes_a_picture(metric, tmp_path):
    import cv2
    rows = [dict(r, metrics={metric: r['metrics']['acc']}) for r in ROWS]
    plot(rows, tmp_path / 'curve.png')
    image = cv2.imread(str(tmp_path / 'curve.png'))
    assert image.shape[0] > 300 and np.ptp(image) > 200


def in_setting(*args, definition='channel', valid=False, **kwargs):
    return dict(row(*args, **kwargs), definition=definition, valid=valid)


SEVERAL = [
    row('clean', 0.0, 80.0),
    in_setting('featjnd', 1.0, 76.0),
    in_setting('gaussian', 1.0, 40.0),
    in_setting('gaussian', 1.0, 44.0, seed=1),
    in_setting('gaussian', 1.0, 60.0, valid=True),
    in_setting('gaussian', 0.5, 72.0, definition='rms'),
]


def test_rows_of_one_setting():
    assert settings_of(SEVERAL) == [('channel', False), ('channel', True),
                                    ('rms', False)]
    assert settings_of(ROWS) == [(None, None)]
    found = rows_of(SEVERAL, 'channel')
    assert found == SEVERAL[:4]
    assert rows_of(SEVERAL, 'channel', True) == [SEVERAL[0], SEVERAL[4]]
    # in an order, and no others
    found = rows_of(SEVERAL, 'channel', False, ['gaussian', 'featjnd', 'x'])
    assert found == [SEVERAL[i] for i in (0, 2, 3, 1)]
    assert rows_of(SEVERAL, 'channel', False, ['x']) == SEVERAL[:1]


def test_strength_table():
    text = strength_table(rows_of(SEVERAL, 'channel'), 'acc')
    assert text.splitlines() == [
        '| distortion | 1 | participation ratio |', '|---|---|---|',
        '| `featjnd` | 76 | 0.50 |', '| `gaussian` | 42 ± 2.8 | 0.50 |']


def test_relative_losses():
    found = relative_losses(rows_of(SEVERAL, 'channel'), 'acc')
    assert found['featjnd'] == [(1, pytest.approx(5), 0)]
    # 50 and 45 percent
    assert found['gaussian'] == [
        (1, pytest.approx(47.5), pytest.approx(5 / math.sqrt(2)))]
    # nats are none of the clean host
    rows = [row('clean', 0.0, None), row('gaussian', 0.5, 0.3, metric='kl')]
    assert relative_losses(rows, 'kl') == {'gaussian': [(0.5, 0.3, 0)]}


@pytest.mark.parametrize('metric', ['acc', 'kl'])
def test_plot_losses_writes_panels(metric, tmp_path):
    import cv2
    rows = [dict(r, metrics={metric: r['metrics']['acc']}) for r in SEVERAL]
    panels = {str(valid): rows_of(rows, 'channel', valid)
              for valid in (False, True)}
    for number, name in ((1, 'one'), (2, 'two')):
        plot_losses(dict(list(panels.items())[:number]),
                    tmp_path / f'{name}.png', metric)
    one, two = (cv2.imread(str(tmp_path / f'{name}.png'))
                for name in ('one', 'two'))
    assert two.shape[1] > one.shape[1] > 300 and np.ptp(two) > 200
