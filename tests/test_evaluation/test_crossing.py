import math

import pytest

from mmfeatjnd.evaluation import UNKNOWN, Bounded, crossing, over_seeds
from mmfeatjnd.evaluation.crossing import ratio

# 1 % of 80: 79.2
NOISE = [(0.5, 79.5), (0.25, 80.1), (1.0, 78.5)]
BITS = [(0.5, 78.4), (1.0, 80.0)]


def test_linear_between_the_points_where_the_loss_is_reached():
    # 79.2 lies 0.3 of the way from 79.5 to 78.5
    assert crossing(NOISE, 80., 'acc') == Bounded(pytest.approx(0.65))
    # and half of the way from 80 to 78.4
    assert crossing(BITS, 80., 'acc', rising=False) == Bounded(
        pytest.approx(0.75))
    # 5 %: 76 is a point
    assert crossing([(0.5, 70.), (1., 76.)], 80., 'acc', 0.05,
                    False) == Bounded(1.)


def test_a_lower_metric_is_better():
    # a loss of 0.8 may rise to 0.88 (10 %), half of the way
    points = [(0.5, 0.84), (1.0, 0.92)]
    assert crossing(points, 0.8, 'loss', 0.1) == Bounded(pytest.approx(0.75))
    assert crossing(points, 0.8, 'acc', 0.1) == Bounded(1.0, '>')


def test_beyond_what_was_measured_there_is_only_a_bound():
    # too harsh at the least strength: not interpolated from the clean host
    assert crossing([(0.25, 79.)], 80., 'acc') == Bounded(0.25, '<')
    assert crossing(NOISE[:2], 80., 'acc') == Bounded(0.5, '>')
    assert crossing([(2., 79.)], 80., 'acc', rising=False) == Bounded(2., '>')
    assert crossing([(.5, 79.5), (1., 80.)], 80., 'acc',
                    rising=False) == Bounded(0.5, '<')


def test_a_lucky_point_beyond_does_not_count():
    curve = [(0.25, 79.9), (0.5, 78.4), (1.0, 80.0), (2.0, 79.5)]
    assert crossing(curve, 80., 'acc', rising=False).value == pytest.approx(
        0.75)
    # the mildest decides, even where harsher ones are within the loss
    assert crossing([(0.5, 80.), (1., 78.)], 80., 'acc',
                    rising=False) == Bounded(1., '>')


@pytest.mark.parametrize('undefined', [math.nan, math.inf, -math.inf])
def test_what_is_not_defined_ends_the_curve(undefined):
    # a loss, or no answer: the strength before it is tolerated in either case
    curve = [(0.5, 80.), (1., undefined), (2., 70.)]
    assert crossing(curve, 80., 'acc') == Bounded(0.5, '>')
    assert crossing([(0.5, undefined), (1., 80.)], 80., 'acc',
                    rising=False) == Bounded(1., '<')
    assert crossing([(0.5, undefined)], 80., 'acc') == UNKNOWN


@pytest.mark.parametrize('clean', [0., -1., math.nan])
def test_unknown_without_a_positive_clean_metric(clean):
    for metric in ('acc', 'loss'):
        assert crossing([(0.5, 0.), (1., 5.)], clean, metric) == UNKNOWN
    assert crossing([], 80., 'acc') == UNKNOWN


def test_mean_and_spread_are_of_the_same_numbers():
    found = over_seeds({0: Bounded(1.), 1: Bounded(2.), 2: Bounded(6.)})
    assert found.value == Bounded(3.)
    assert found.std == pytest.approx(math.sqrt(7))
    assert f'{found:.2f}' == '3.00 ± 2.65'
    assert f'{over_seeds({0: Bounded(1.)}):.1f}' == '1.0'  # no spread of one


def test_a_bound_of_a_seed_bounds_the_mean():
    assert over_seeds({0: Bounded(1.), 1: Bounded(2., '>')})[:2] == (
        Bounded(1.5, '>'), None)
    assert f'{over_seeds({0: Bounded(1., "<"), 1: Bounded(3.)}):.1f}' == \
        '< 2.0'
    for by_seed in ({}, {0: UNKNOWN, 1: Bounded(1.)},
                    {0: Bounded(1., '<'), 1: Bounded(1., '>')}):
        assert over_seeds(by_seed)[:2] == (UNKNOWN, None)


@pytest.mark.parametrize('ours, theirs, relation', [
    ('', '', ''), ('<', '', '<'), ('>', '', '>'), ('', '<', '>'),
    ('', '>', '<'), ('<', '>', '<'), ('>', '<', '>'), ('<', '<', '?'),
    ('>', '>', '?')
])
def test_ratio_of_bounds(ours, theirs, relation):
    found = ratio(Bounded(3., ours), Bounded(4., theirs))
    assert found.relation == relation
    if relation != '?':
        assert found.value == 0.75


def test_ratio_of_what_is_not_known():
    assert ratio(UNKNOWN, Bounded(1.)) == ratio(Bounded(1.), UNKNOWN) == \
        ratio(Bounded(1.), Bounded(0.)) == UNKNOWN


def test_how_bounds_are_shown():
    assert f'{Bounded(0.25):.0%} {Bounded(2.0, ">"):.1f}' == '25% > 2.0'
    assert f'{UNKNOWN:.2f}' == '?'
