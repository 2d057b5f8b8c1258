"""Two distortions compared, by rows made by hand."""
import math

import numpy as np
import pytest

from mmfeatjnd.evaluation import Bounded
from mmfeatjnd.evaluation.comparison import (
    compare,
    gain_in_octaves,
    losses,
    setting_of,
    tolerated_strength,
    volume_at_nats,
)

CONTROLS = ('static', 'permuted')


def row(distortion, nrmse, *draws, seed=0, metric='acc', valid=False):
    return dict(
        distortion=distortion,
        definition='channel',
        valid=valid,
        nrmse=nrmse,
        seed=seed,
        metrics={metric: draws[0]},
        draws={metric: list(draws)})


def clean(*draws, metric='acc'):
    return dict(distortion='clean', nrmse=0.0, seed=0,
                metrics={metric: draws[0]}, draws={metric: list(draws)})


# the images as they are, and two draws
ROWS = [
    clean(80., 80., 40.),
    row('gaussian', 1.0, 40., 60., 20.),
    row('static', 1.0, 72., 76., 36.),
    row('permuted', 1.0, 64., 80., 40.),
    row('featjnd', 1.0, 76., 80., 38.),
    row('featjnd', 1.0, 80., 80., 38., seed=1),
    row('featjnd', 2.0, 40., 40., 20.),
    row('static', 1.0, 80., 80., 40., valid=True),
    row('featjnd', 1.0, 40., 60., 30., valid=True),
]


def kl(distortion, curve, **kwargs):
    """Rows of nats by strength, of the images and of each draw."""
    return [row(distortion, strength, *np.atleast_1d(values), metric='kl',
                **kwargs) for strength, values in curve.items()]


def test_losses_are_shares_of_the_draws_own_clean_metric():
    found = losses(ROWS, 'acc')
    assert found['static', 'channel', False, 1.0] == pytest.approx(
        [0.1, 0.05, 0.1])
    # the mean of two seeds
    assert found['featjnd', 'channel', False, 1.0] == pytest.approx(
        [0.025, 0, 0.05])
    assert found['featjnd', 'channel', True, 1.0] == pytest.approx(
        [0.5, 0.25, 0.25])
    assert len(found) == 7
    assert setting_of(ROWS[1]) == ('channel', False, 1.0)


def test_what_is_better_when_lower_is_the_loss():
    rows = kl('gaussian', {1.0: (0.5, 0.25)})
    found = losses(rows, 'kl')
    assert found['gaussian', 'channel', False, 1.0] == pytest.approx(
        [0.5, 0.25])
    # nothing of a metric that was not drawn
    assert losses(ROWS, 'kl') == {}


def test_a_share_needs_the_clean_host():
    with pytest.raises(ValueError, match='clean host'):
        losses(ROWS[1:], 'acc')
    with pytest.raises(ValueError, match="draws of 'mIoU'"):
        losses(ROWS, 'mIoU')


def test_compare_takes_the_best_control_of_the_same_setting():
    free, valid = compare(ROWS, 'acc', controls=CONTROLS)
    # at 2.0 no control was measured; not kept valid comes first
    assert (free['definition'], free['valid'], free['nrmse']) == (
        'channel', False, 1.0)
    assert valid['valid'] is True
    # 0.1 against 0.2 on the images, although a draw says otherwise
    assert free['best_control'] == 'static' and free['metric'] == 'acc'
    assert free['control'] == pytest.approx([0.1, 0.05125, 0.09875])
    assert free['ours'] == pytest.approx([0.025, 0.00125, 0.04875])
    assert free['reference'] == pytest.approx([0.5, 0.25625, 0.49375])
    # of each draw: 0.05 - 0 and 0.1 - 0.05
    assert free['difference'] == pytest.approx([0.075, 0.05, 0.05])
    # 0 / 0.05 and 0.05 / 0.1
    assert free['share'] == pytest.approx([0.25, 0.0125, 0.4875])
    # 0 / 0.25 and 0.05 / 0.5
    assert free['share_of_reference'] == pytest.approx(
        [0.05, 0.0025, 0.0975])
    # white was not measured
    assert valid['reference'] is valid['share_of_reference'] is None


def test_a_share_of_nothing():
    found = compare(ROWS, 'acc', controls=CONTROLS)[1]
    assert found['control'] == [0, 0, 0]
    assert found['share'] == [math.inf] * 3
    found, = compare(ROWS[:1] + [
        row('static', 1.0, 80., 84., 40.),
        row('featjnd', 1.0, 80., 80., 41.)], 'acc', controls=CONTROLS)
    # better than a control that is better than clean: no number
    assert np.isnan(found['share']).all()


def test_a_control_that_is_not_defined_does_not_count():
    rows = ROWS + [row('permuted', 2.0, math.nan, math.nan, math.nan),
                   row('static', 2.0, 20., 40., 20.)]
    assert compare(rows, 'acc', controls=CONTROLS[::-1])[1][
        'best_control'] == 'static'


def test_tolerated_strength_is_linear_in_the_logarithms():
    # as the square: 0.01, 0.04, 0.16
    rows = kl('gaussian', {4.0: (0.16, 0.16), 1.0: (0.01, 0.04),
                           2.0: (0.04, 0.16)})
    rows += kl('gaussian', {1.0: (9., 9.)}, valid=True)
    own, draw = tolerated_strength(rows, 'gaussian', 0.02)
    assert own == Bounded(pytest.approx(0.5)) and draw == Bounded(0, '<')
    assert tolerated_strength(rows, 'gaussian', 0.04) == (
        Bounded(pytest.approx(1)), Bounded(0))
    assert tolerated_strength(rows, 'gaussian', 0.5) == (
        Bounded(2, '>'), Bounded(2, '>'))
    assert tolerated_strength(rows, 'gaussian', 0.5, valid=True) == (
        Bounded(0, '<'), Bounded(0, '<'))
    assert tolerated_strength(rows, 'static', 0.02) is None
    assert tolerated_strength(rows, 'gaussian', 0.02, 'rms') is None


def test_tolerated_strength_of_seeds_and_of_what_costs_nothing():
    rows = kl('featjnd', {1.0: 0.0, 2.0: 0.02}) + kl(
        'featjnd', {1.0: 0.0, 2.0: 0.06}, seed=1)
    at, = tolerated_strength(rows, 'featjnd', 0.04)  # their mean
    assert at == Bounded(pytest.approx(1))
    at, = tolerated_strength(rows, 'featjnd', 0.02)
    assert at.exact and 0 < at.value < 1


def test_gain_in_octaves():
    rows = kl('gaussian', {1.0: (0.01, 0.01, 0.01), 2.0: (0.04, 0.04, 0.16)})
    rows += kl('featjnd', {2.0: (0.01, 0.01, 0.01), 4.0: (0.04, 0.16, 0.04)})
    # 0.5 and 1.5; of the draws 1.25 - 0.5 and 1.5 - 0.25
    found = gain_in_octaves(rows, 'featjnd', 'gaussian', 0.02)
    assert found == pytest.approx((1, 0.7625, 1.2375))
    # beyond what was measured, or not measured
    assert gain_in_octaves(rows, 'featjnd', 'gaussian', 0.2) is None
    assert gain_in_octaves(rows, 'static', 'gaussian', 0.02) is None
    assert gain_in_octaves(rows, 'featjnd', 'gaussian', 0.02,
                           valid=True) is None


def test_a_draw_that_is_only_bounded_leaves_the_interval_open():
    rows = kl('gaussian', {1.0: (0.01, 0.03), 2.0: (0.04, 0.04)})
    rows += kl('featjnd', {2.0: (0.01, 0.01), 4.0: (0.04, 0.04)})
    # white's draw is at most 0, ours 1.5
    assert gain_in_octaves(rows, 'featjnd', 'gaussian', 0.02) == (
        pytest.approx(1), pytest.approx(1.5), math.inf)
    rows = kl('gaussian', {1.0: (0.01, 0.01), 2.0: (0.04, 0.04)})
    rows += kl('featjnd', {2.0: (0.01, 0.03), 4.0: (0.04, 0.04)})
    # ours is at most 1, white's 0.5
    assert gain_in_octaves(rows, 'featjnd', 'gaussian', 0.02) == (
        pytest.approx(1), -math.inf, pytest.approx(0.5))


def test_volume_where_it_costs_so_many_nats():
    rows = kl('featjnd', {1.0: (0.01, 0.02, 0.02), 4.0: (0.04, 0.04, 0.02)})
    for r, bits in zip(rows, (0.5, 2.5)):
        r['volume_bits'] = bits
    # halfway in the logarithms; of the draws at 1, and at 1 again
    assert volume_at_nats(rows, 'featjnd', 0.02) == pytest.approx(
        (1.5, 0.5, 0.5))
    # no volume, not measured, out of reach
    assert volume_at_nats(kl('a', {1.0: (.01, .01), 2.0: (.04, .04)}), 'a',
                          0.02) is None
    assert volume_at_nats(rows, 'static', 0.02) is None
    assert volume_at_nats(rows, 'featjnd', 0.08) is None
