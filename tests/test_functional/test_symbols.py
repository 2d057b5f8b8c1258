import math

import pytest
import torch

from mmfeatjnd.functional import saturated
from mmfeatjnd.functional.symbols import MAX_SYMBOL, from_symbols, to_symbols


def _row(*values):
    return torch.tensor([values], dtype=torch.float32)


def restored(x, step, rounding=0.5):
    return from_symbols(to_symbols(x, step, rounding), step)


@pytest.mark.parametrize('rounding, expected', [
    (0.5, [0, 0, 1, 1, 2, 3, -1, -3]),
    (0.25, [0, 0, 0, 1, 1, 2, -1, -2]),
    (0.0, [0, 0, 0, 1, 1, 2, -1, -2]),
])
def test_rounding_by_hand(rounding, expected):
    x = _row(0, 0.4, 0.6, 1.2, 1.5, 2.5, -1.3, -2.6)
    symbols = to_symbols(x, torch.tensor(1.0), rounding)
    assert symbols.tolist() == [expected]
    # half the size, half the step
    half = to_symbols(x / 2, torch.tensor(0.5), rounding)
    assert half.tolist() == [expected]


def test_threshold_is_one_minus_rounding():
    for rounding in (0.5, 0.3, 0.125, 0.0):
        threshold = 1 - rounding
        x = _row(threshold - 1e-3, threshold + 1e-3, -threshold + 1e-3,
                 -threshold - 1e-3, 4 + threshold - 1e-3,
                 4 + threshold + 1e-3)
        symbols = to_symbols(x, torch.tensor(1.0), rounding)
        assert symbols.tolist() == [[0, 1, 0, -1, 4, 5]]


def test_deadzone_by_hand():
    x = _row(0.6, 0.74, 0.75, 1.4, 1.6, -0.74, -0.76)
    symbols = to_symbols(x, torch.tensor(1.0), deadzone=0.75)
    assert symbols.tolist() == [[0, 0, 1, 1, 2, 0, -1]]
    symbols = to_symbols(x, torch.tensor(1.0), deadzone=1.5)
    assert symbols.tolist() == [[0, 0, 0, 0, 2, 0, 0]]


def test_symbols_are_clamped_to_16_bits():
    symbols = to_symbols(_row(1e6, -1e6, 32767, 32766.4), torch.tensor(1.0))
    assert symbols.tolist() == [[32767, -32767, 32767, 32766]]
    assert MAX_SYMBOL == 32767


def test_saturation_is_told():
    """Finer steps make more noise once the symbols end."""
    x = torch.randn(2, 1000).clamp(-3, 3)
    x[1, ::4] = 40.
    for step, share in ((1e-3, [0, 0]), (40 / 32766, [0, 0]),
                        (1.2e-3, [0, 0.25]), (1e-9, [1, 1])):
        symbols = to_symbols(x, torch.tensor(step))
        got = saturated(symbols).tolist()
        if step == 1e-3:  # 40 needs 40000 symbols
            share = [0, 0.25]
        assert got == pytest.approx(share, abs=1e-6), step
    fine, finer = (
        (restored(x, torch.tensor(step)) - x)[1].abs().max()
        for step in (40 / 32766, 1e-4))
    assert fine < 1e-3 and finer > 30


def test_saturation_by_hand():
    symbols = torch.tensor([[32767., -32767., 32766., 0.], [1., 2., 3., -4.]])
    assert saturated(symbols).tolist() == [0.5, 0]
    symbols[1, 2] = math.nan
    assert saturated(symbols)[0] == 0.5 and saturated(symbols)[1].isnan()
    assert saturated(torch.zeros(0, 3, 2)).shape == (0, )


def test_what_is_no_number_stays_so():
    x = torch.ones(3, 4)
    x[1, 2] = math.nan
    symbols = to_symbols(x, torch.tensor(0.3))
    assert symbols[1].isnan().tolist() == [False, False, True, False]
    assert not symbols[::2].isnan().any()
    step = torch.tensor([[1.], [math.nan], [1.]])
    symbols = to_symbols(torch.ones(3, 4), step, deadzone=0.7)
    assert symbols.isnan().all(1).tolist() == [False, True, False]


def test_steps_and_rounding_for_every_element():
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    step = torch.tensor([[0.5, 1.0, 1.6, 1.6]])
    rounding = torch.tensor([[0.5, 0.5, 0.5, 0.3]])
    assert to_symbols(x, step, rounding).tolist() == [[2, 1, 1, 0]]
    torch.testing.assert_close(
        restored(x, step, rounding),
        torch.tensor([[1.0, 1.0, 1.6, 0.0]]))


def test_error_is_at_most_half_a_step():
    torch.manual_seed(0)
    x, step = torch.randn(3, 8, 5, 5), torch.rand(3, 8, 5, 5) + 0.01
    error = (restored(x, step) - x).abs()
    assert (error <= step / 2 * (1 + 1e-5)).all()
    assert error.max() > step.max() / 4
