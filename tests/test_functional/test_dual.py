import math

import pytest
import torch

from mmfeatjnd.functional import dual_ascent


@pytest.mark.parametrize('discrepancy, factor', [
    (0.2, 1.),
    (0.3, math.exp(0.05 * 0.5)),
    (0.1, math.exp(-0.05 * 0.5)),
    (0., math.exp(-0.05)),
    (99., math.exp(0.05)),
    (-5., math.exp(-0.05)),
])
def test_one_step_by_hand(discrepancy, factor):
    got = dual_ascent(torch.tensor(4.), torch.tensor(discrepancy), 0.2)
    assert got.item() == pytest.approx(4 * factor, rel=1e-6)


def test_bounds():
    high, low = torch.tensor(1e4), torch.tensor(1e-3)
    assert dual_ascent(high, torch.tensor(9.), 0.1) == high
    assert dual_ascent(low, torch.tensor(0.), 0.1) == low
    assert dual_ascent(low, torch.tensor(9.), 0.1, bounds=(5., 6.)) == 5


def test_an_undefined_discrepancy_changes_nothing():
    """A skipped step of mixed precision must not end the adaptation."""
    two = torch.tensor(2.)
    assert dual_ascent(two, torch.tensor(math.nan), 0.1) == two
    assert dual_ascent(two, torch.tensor(math.inf), 0.1) > two


def test_it_finds_the_multiplier_of_a_toy_problem():
    """max log x s.t. x^2 <= eps: x = sqrt(eps), lambda = 1 / (2 eps)."""
    eps, multiplier = 0.25, torch.tensor(50.)
    for _ in range(400):
        x = (1 / (2 * multiplier)).sqrt()  # argmax log x - lambda x^2
        multiplier = dual_ascent(multiplier, x * x, eps)
    assert multiplier.item() == pytest.approx(2., rel=1e-3)
