import math

import numpy as np
import pytest

from mmfeatjnd.evaluation import UNKNOWN, Bounded, rate


def row(policy, bits, value, seed=0, coded=0.1):
    return dict(
        policy=policy,
        protocol='rate',
        noise_budget=None,
        mean_bits=bits,
        nrmse_measured=0.5,
        bits_per_element=bits,
        coded_bits_per_element=None if coded is None else bits + coded,
        seed=seed,
        metrics=dict(acc=value))


def noisy(policy, budget, value, seed=0, measured=None):
    return dict(
        row(policy, 2.0, value, seed),
        protocol='equal-noise',
        mean_bits=None,
        noise_budget=budget,
        nrmse_measured=measured or budget)


CLEAN = dict(policy='clean', metrics=dict(acc=80.0))
# 1 % loss: 79.2
ROWS = [
    CLEAN,
    row('featjnd', 1.0, 79.8),
    row('featjnd', 1.0, 80.2, seed=1),
    row('featjnd', 0.5, 78.0),
    row('featjnd', 0.5, 78.8, seed=1),
    row('one-step', 2.0, 80.0),
    row('one-step', 1.0, 76.0),
]


def test_summary_by_rising_rate():
    curves = rate.summarize(ROWS)
    assert list(curves) == ['featjnd', 'one-step']
    coarse, fine = curves['featjnd']
    assert (coarse.target, coarse.bits, coarse.num_seeds) == (0.5, 0.5, 2)
    assert coarse.coded_bits == coarse.rate == pytest.approx(0.6)
    assert fine.mean == 80.0
    std = 0.4 / math.sqrt(2)  # of 79.8 and 80.2
    assert fine.std == pytest.approx(std)
    assert fine.ci95 == pytest.approx(12.7062 * std / math.sqrt(2))
    once = curves['one-step'][0]
    assert (once.std, once.ci95, once.num_seeds) == (0, 0, 1)


def test_summary_of_one_seed_keeps_what_was_measured_once():
    curves = rate.summarize(ROWS, seed=1)
    assert [p.mean for p in curves['featjnd']] == [78.8, 80.2]
    assert [p.mean for p in curves['one-step']] == [76.0, 80.0]


def test_rows_without_a_target_are_joined_by_their_order():
    rows = [dict(r, mean_bits=None) for r in ROWS[1:]]
    for r in rows:
        r['bits_per_element'] += 0.01 * r['seed']
    curve = rate.summarize([CLEAN] + rows)['featjnd']
    assert [p.mean for p in curve] == [78.4, 80.0]
    assert curve[0].bits == pytest.approx(0.505)


def test_bits_of_each_image_are_a_target_too():
    rows = [dict(r, mean_bits=None, bits=r['mean_bits']) for r in ROWS[1:]]
    assert rate.summarize([CLEAN] + rows) == rate.summarize(ROWS)


def test_rate_of_the_model_where_nothing_was_coded():
    rows = [CLEAN, row('p', 0.5, 80.0, coded=None)]
    assert rate.summarize(rows)['p'][0].rate == 0.5
    assert not rate.has_coded_bits(rows) and rate.has_coded_bits(ROWS)
    assert '(entropy model)' in rate.to_markdown(rows)


def test_bits_at_loss_of_each_seed():
    # seed 0: 78 at 0.6, 79.8 at 1.1; seed 1: 78.8 and 80.2
    each = [0.6 + 0.5 * 1.2 / 1.8, 0.6 + 0.5 * 0.4 / 1.4]
    found = rate.bits_at_loss(ROWS)
    assert [found.by_seed[s].value for s in (0, 1)] == pytest.approx(each)
    # the spread is that of the numbers whose mean stands before it
    assert found.value == Bounded(pytest.approx(np.mean(each)))
    assert found.std == pytest.approx(np.std(each, ddof=1))
    once = rate.bits_at_loss(ROWS, 'one-step')
    assert (once.value, once.std) == (Bounded(pytest.approx(1.9)), None)
    assert rate.bits_at_loss(ROWS, 'absent').value == UNKNOWN


def test_bits_at_loss_is_bounded_by_what_was_measured():
    rows = [CLEAN, row('inside', 1.0, 79.5), row('outside', 1.0, 79.0),
            row('both', 1.0, 79.5), row('both', 1.0, 79.0, seed=1)]
    found = [rate.bits_at_loss(rows, name).value
             for name in ('inside', 'outside', 'both')]
    assert found == [Bounded(1.1, '<'), Bounded(1.1, '>'), UNKNOWN]


NOISE = [
    CLEAN,
    noisy('featjnd', 0.5, 79.9),
    noisy('featjnd', 1.0, 79.0),
    noisy('featjnd', 1.0, 78.0, seed=1),
    noisy('one-step', 0.5, 79.5),
    noisy('one-step', 1.0, 78.0),
    noisy('permuted-steps', 1.0, 77.0),
    noisy('permuted-steps', 1.0, 77.2, seed=1),
    noisy('clip-uniform', 0.5, 10.0, measured=0.98),
    noisy('clip-uniform', 1.0, 70.0),
]


def test_a_noise_budget_that_was_not_reached_is_not_shown():
    assert '| clip-uniform | not reached | 70 (2.100) |' in \
        rate.to_markdown(NOISE)


def test_markdown_has_every_point_and_the_bits_at_loss():
    text = rate.to_markdown(ROWS + NOISE[1:])
    assert '| policy | 0.5 | 1 | 2 | 1 % loss |' in text
    assert '| featjnd | 78.4 ± 0.57 (0.600) | 80 ± 0.28 (1.100) |  | ' \
        '0.838 ± 0.135 |' in text
    assert '| one-step |  | 76 (1.100) | 80 (2.100) | 1.900 |' in text
    assert '| policy | 0.5 | 1 |\n' in text
    assert '| permuted-steps |  | 77.1 ± 0.14 (2.100) |' in text


def test_markdown_leaves_out_a_protocol_without_rows():
    assert 'equal noise' not in rate.to_markdown(ROWS)
    assert '1 % loss' not in rate.to_markdown(NOISE)


def test_of_a_metric_that_is_better_when_lower():
    rows = [dict(CLEAN, metrics=dict(rmse=2.0)),
            dict(row('p', 1.0, 0.), metrics=dict(rmse=2.0)),
            dict(row('p', 0.5, 0.), metrics=dict(rmse=2.1))]
    # 2.02 at a fifth of the way from 1.1 to 0.6 bits
    assert rate.bits_at_loss(rows, 'p').value.value == pytest.approx(1.0)


@pytest.mark.parametrize('clean', [0., -1., math.nan, None])
def test_a_clean_metric_that_is_not_positive(clean, tmp_path):
    rows = [dict(CLEAN, metrics=dict(acc=clean))] + ROWS[1:] + NOISE[1:]
    assert rate.bits_at_loss(rows).value == UNKNOWN
    assert '| ? |' in rate.to_markdown(rows)
    for i, draw in enumerate((rate.plot, rate.plot_noise)):
        draw(rows, tmp_path / f'{i}.png')


def test_metrics_that_are_missing_or_not_defined(tmp_path):
    rows = [CLEAN, row('p', 2.0, 80.0), row('p', 1.0, math.nan),
            dict(row('p', 0.5, 0.), metrics={})]
    text = rate.to_markdown(rows)
    assert '| p | not defined (0.600) | not defined (1.100) | 80 (2.100) | ' \
        '< 2.100 |' in text
    rate.plot(rows, tmp_path / 'rate.png')


def test_unknown_protocol():
    with pytest.raises(ValueError, match='equal-noise'):
        rate.summarize(ROWS, protocol='noise')


@pytest.mark.parametrize('draw', [rate.plot, rate.plot_noise])
def test_plots_write_a_picture(draw, tmp_path):
    import cv2
    draw(ROWS + NOISE[1:], tmp_path / 'curve.png')
    image = cv2.imread(str(tmp_path / 'curve.png'))
    assert image.shape[0] > 300 and np.ptp(image) > 200
    draw([CLEAN], tmp_path / 'none.png')  # nothing to draw, and no error
