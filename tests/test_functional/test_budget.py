import math

import pytest
import torch

from mmfeatjnd.functional import (
    GRANULARITIES,
    Allocation,
    Steps,
    bisect_scale,
    code_length,
    make_steps,
    meets_target,
    modelled_noise,
    nrmse,
    quantize,
    saturated,
    scale_limits,
    scale_to_modelled_noise,
)
from mmfeatjnd.functional.symbols import MAX_SYMBOL


def test_closed_form_by_hand():
    # steps 1 and 2: mean square 2.5; the feature's RMS is 5
    feature = torch.tensor([[5., -5.]])
    steps = Steps(torch.ones(1), channel=torch.tensor([[0, 2]]))
    scaled = scale_to_modelled_noise(steps, feature, 0.1)
    assert scaled.base.item() == pytest.approx(0.5 / math.sqrt(2.5 / 12))
    assert scaled.channel is steps.channel


@pytest.mark.parametrize('shape', [(3, 4, 5, 6), (3, 9, 4), (3, 12)])
def test_closed_form_meets_the_budget_of_every_image(shape):
    torch.manual_seed(0)
    feature = torch.randn(shape) * 3
    steps = make_steps(torch.randn(shape), 'channel-token')
    budget = torch.tensor([0.01, 0.1, 1.0])
    scaled = scale_to_modelled_noise(steps, feature, budget)
    noise = modelled_noise(scaled, feature).sqrt()
    rms = feature.square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(noise / rms, budget, rtol=1e-4, atol=0)


def test_image_without_energy_keeps_its_steps():
    steps = Steps(torch.tensor([3.0, 3.0]))
    feature = torch.stack([torch.zeros(4), torch.ones(4)])
    base = scale_to_modelled_noise(steps, feature, 0.1).base
    assert base[0] == 3 and torch.isfinite(base).all() and base[1] != 3


def test_bisection_finds_known_scales():
    target = torch.tensor([0.01, 1.0, 700.0])
    scale = bisect_scale(lambda s: s**2, target)
    torch.testing.assert_close(scale, target.sqrt(), rtol=1e-4, atol=0)
    scale = bisect_scale(lambda s: 1 / s, target, increasing=False)
    torch.testing.assert_close(scale, 1 / target, rtol=1e-4, atol=0)


def test_bisection_out_of_reach_ends_at_the_nearest_end():
    target = torch.tensor([0.0, 1e9])
    scale = bisect_scale(lambda s: s, target, finest=1 / 8, coarsest=4)
    torch.testing.assert_close(scale, torch.tensor([1 / 8, 4.0]), rtol=1e-3,
                               atol=0)
    scale = bisect_scale(
        lambda s: -s, -target, increasing=False, finest=1 / 8, coarsest=4)
    torch.testing.assert_close(scale, torch.tensor([1 / 8, 4.0]), rtol=1e-3,
                               atol=0)


def test_bisection_meets_the_measured_noise():
    torch.manual_seed(1)
    feature = torch.randn(3, 8, 12, 12)
    steps = make_steps(torch.randn(3, 8, 12, 12) * 0.3, 'token')

    def measure(scale):
        _, value = quantize(feature, Allocation(steps.scaled(scale)))
        return nrmse(value - feature, feature)

    target = torch.tensor([0.02, 0.2, 0.6])
    scale = bisect_scale(measure, target)
    torch.testing.assert_close(measure(scale), target, rtol=0.01, atol=0)
    # images do not mix
    other = bisect_scale(measure, torch.tensor([0.5, 0.2, 0.6]))
    assert torch.equal(scale[1:], other[1:]) and scale[0] < other[0]


def test_closed_form_of_large_features():
    """The square of a step of 1e37 is infinite in float32."""
    feature = torch.tensor([[5., -5.]])
    steps = Steps(torch.ones(1), channel=torch.tensor([[0, 2]]))
    small = scale_to_modelled_noise(steps, feature, 0.1).base
    large = scale_to_modelled_noise(steps.scaled(1e37), feature * 1e37, 0.1)
    torch.testing.assert_close(large.base, small * 1e37)


def test_closed_form_of_a_broken_image():
    feature = torch.ones(3, 4)
    feature[1, 2] = math.nan
    base = scale_to_modelled_noise(Steps(torch.ones(3)), feature, 0.1).base
    assert base.isnan().tolist() == [False, True, False]


# --------------------------------------------------------------------- limits
@pytest.mark.parametrize('shape', [(3, 4, 5, 6), (3, 9, 4), (3, 12)])
@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('unit', [1., 1e30, 1e-30])
def test_limits_are_where_symbols_end(shape, granularity, unit):
    torch.manual_seed(3)
    feature = torch.randn(shape) * unit
    steps = make_steps(torch.randn(shape) + math.log(unit), granularity)
    finest, coarsest = scale_limits(feature, steps)

    def symbols(scale):
        quantized, _ = quantize(feature, Allocation(steps.scaled(scale)))
        return quantized.symbols.flatten(1)

    at = symbols(finest)
    assert at.abs().amax(1).tolist() == [MAX_SYMBOL - 1] * 3
    assert not saturated(at).any()
    # a little finer, and what is largest has no symbol of its own
    assert (saturated(symbols(finest * 0.999)) > 0).all()
    assert not symbols(coarsest).any()
    assert (symbols(coarsest / 2.2) != 0).any(1).all()


def test_limits_by_hand():
    feature = torch.tensor([[1., -8.], [0., 0.], [3., math.nan]])
    steps = Steps(torch.tensor([0.5, 2., 1.]))
    finest, coarsest = scale_limits(feature, steps)
    assert finest[0].item() == pytest.approx(16 / 32766)
    assert coarsest[0].item() == pytest.approx(16 * 2.1)
    # any scale will do for an image that is 0
    assert 0 < finest[1] < coarsest[1] < math.inf
    assert finest[2].isnan() and coarsest[2].isnan()


def test_limits_of_the_smallest_features_are_positive():
    feature = torch.tensor([[1e-44, 0.], [1e-38, 2e-38]])
    steps = Steps(feature.amax(1))
    finest, coarsest = scale_limits(feature, steps)
    assert (finest <= coarsest).all()
    for scale in (finest, coarsest):
        assert (steps.scaled(scale).base > 0).all()
        _, value = quantize(feature, Allocation(steps.scaled(scale)))
        assert value.isfinite().all()


# --------------------------------------------------------------------- search
def test_bisection_between_ends_of_each_image():
    target = torch.tensor([0.1, 0.1, 5.0, 5.0])
    finest = torch.tensor([0.01, 0.5, 0.01, 0.5])
    coarsest = torch.tensor([1.0, 1.0, 2.0, 9.0])
    scale = bisect_scale(lambda s: s, target, True, finest, coarsest)
    torch.testing.assert_close(
        scale, torch.tensor([0.1, 0.5, 2.0, 5.0]), rtol=1e-4, atol=0)
    # an interval of one scale
    one = torch.ones(4)
    assert torch.equal(bisect_scale(lambda s: s, target, True, one, one), one)


def test_what_cannot_be_measured_gets_no_scale():
    """A NaN compares as false, which looks like an answer."""

    def measure(scale):
        return torch.where(torch.tensor([False, True]), math.nan, scale)

    for increasing in (True, False):
        scale = bisect_scale(measure, torch.ones(2), increasing)
        assert not scale[0].isnan() and scale[1].isnan()


def test_meets_target_by_hand():
    measured = torch.tensor([1.04, 0.96, 1.06, 0.94, math.nan, math.inf, 0.])
    assert meets_target(measured, 1.0).tolist() == [True] * 2 + [False] * 5
    assert meets_target(measured, torch.ones(7)).tolist() == [True] * 2 + [
        False] * 5
    assert meets_target(measured, 1.0, precision=0.1).tolist() == [
        True] * 4 + [False] * 3
    assert meets_target(torch.tensor([100.]), 96.).item()


def test_an_outlier_ends_the_search_where_its_symbol_does():
    """One of 6,400 values is 3000: 8 bits would take symbols beyond 16 bits.
    The search has to stop with the least error, not where all is lost."""
    torch.manual_seed(4)
    feature = torch.randn(2, 16, 20, 20)
    feature[0, 3, 4, 5] = 3000.
    steps = Steps(torch.ones(2))

    def quantized(scale):
        return quantize(feature, Allocation(steps.scaled(scale)))[0]

    def rate(scale):
        return code_length(quantized(scale)) / 6400

    def noise(scale):
        _, value = quantize(feature, Allocation(steps.scaled(scale)))
        return nrmse(value - feature, feature)

    finest, coarsest = scale_limits(feature, steps)
    for bits in (8., 16., 1e9):
        scale = bisect_scale(rate, torch.full((2, ), bits), False, finest,
                             coarsest)
        assert not saturated(quantized(scale).symbols).any()
        assert noise(scale).max() < 0.01
        assert meets_target(rate(scale), bits).tolist() == [False, bits == 8]
    # noise that no step is fine enough for: the least there is
    scale = bisect_scale(noise, torch.full((2, ), 1e-12), True, finest,
                         coarsest)
    assert not meets_target(noise(scale), 1e-12).any()
    assert (noise(scale) <= noise(scale * 2)).all()
    # and more noise than rounding to 0 makes
    scale = bisect_scale(noise, torch.full((2, ), 5.), True, finest, coarsest)
    assert not quantized(scale).symbols.any()
    assert not meets_target(noise(scale), 5.).any()


def test_noise_grows_and_the_rate_falls_between_the_limits():
    torch.manual_seed(5)
    feature = torch.randn(1, 16, 20, 20)**3
    steps = make_steps(torch.randn(1, 16, 20, 20) * 0.3, 'channel-token')
    finest, coarsest = scale_limits(feature, steps)
    noise, rate = [], []
    for share in torch.linspace(0, 1, 30):
        scaled = steps.scaled(finest**(1 - share) * coarsest**share)
        quantized, value = quantize(feature, Allocation(scaled))
        noise.append(nrmse(value - feature, feature).item())
        rate.append(code_length(quantized).item())
    assert noise == sorted(noise) and rate == sorted(rate, reverse=True)
    assert rate[-1] == 0 and noise[-1] == pytest.approx(1)
