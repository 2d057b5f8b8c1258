"""Quantization with a gradient."""
import math

import pytest
import torch

from mmfeatjnd.functional import (
    QuantizedLevel,
    additive_noise,
    code_length,
    image_keys,
    make_steps,
    soft_code_length,
    straight_through,
)
from mmfeatjnd.functional.symbols import to_symbols

LAYOUTS = [(2, 5, 6, 7), (2, 30, 5), (2, 40)]


def _case(shape, scale=1.0):
    """Features with exponential tails, and steps that vary."""
    generator = torch.Generator().manual_seed(0)
    channel = 2 if len(shape) == 3 else 1
    size = [1] * len(shape)
    size[channel] = shape[channel]
    spread = (torch.randn(size, generator=generator) * 0.7).exp()
    feature = torch.empty(shape).exponential_(generator=generator) * spread
    feature *= torch.rand(shape, generator=generator) < 0.6
    sign = torch.rand(shape, generator=generator) < 0.5
    feature = torch.where(sign, feature, -feature)
    log_step = torch.randn(shape, generator=generator) * 0.5
    return feature, make_steps(log_step, 'channel-token').scaled(scale)


# ------------------------------------------------------------------ features
def test_additive_noise_is_uniform_over_one_step():
    keys = image_keys(['a', 'b'])
    feature = torch.randn(2, 4, 50, 50)
    step = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)
    noise = (additive_noise(feature, step, keys) - feature) / step
    assert noise.abs().max() <= 0.5 + 1e-5
    assert noise.mean().abs() < 0.01
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.02)
    other = (additive_noise(feature, step, keys, 1) - feature) / step
    assert (noise * other).mean().abs() < 0.002


def test_additive_noise_belongs_to_the_image():
    keys = image_keys(['a', 'b'])
    feature, step = torch.randn(2, 3, 4), torch.tensor(0.5)
    both = additive_noise(feature, step, keys)
    torch.testing.assert_close(
        additive_noise(feature[1:], step, keys[1:]), both[1:])


@pytest.mark.parametrize('rounding', [0.5, 0.2])
def test_straight_through_forward_is_the_quantizer(rounding):
    torch.manual_seed(3)
    x = torch.randn(2, 3, 4, 4) * 5
    step = torch.tensor(0.7)
    torch.testing.assert_close(
        straight_through(x, step, rounding), to_symbols(x, step, rounding),
        rtol=0, atol=2e-6)


def test_straight_through_gradient_by_hand():
    kappa, rho = 10.0, 0.4
    for f, delta in [(1.3, 0.8), (-1.3, 0.8), (0.05, 1.0), (2.55, 1.0)]:
        x = torch.tensor([[f]], requires_grad=True)
        step = torch.tensor([[delta]], requires_grad=True)
        rounding = torch.tensor([[rho]], requires_grad=True)
        symbols = straight_through(x, step, rounding, kappa)
        grads = torch.autograd.grad(symbols.sum(), (x, step, rounding))
        y = abs(f) / delta
        s = 1 / (1 + math.exp(-kappa * (y - math.floor(y) - 1 + rho)))
        slope = kappa * s * (1 - s)
        sign = math.copysign(1, f)
        # the sign of f enters twice: by |f|, and as the sign of the symbols
        assert grads[0].item() == pytest.approx(slope / delta, rel=1e-4)
        assert grads[1].item() == pytest.approx(-sign * slope * y / delta,
                                                rel=1e-4)
        assert grads[2].item() == pytest.approx(sign * slope, rel=1e-4)


# --------------------------------------------------------------- code length
@pytest.mark.parametrize('shape', [(3, 5, 6, 7), (3, 30, 5), (3, 40)])
def test_no_plausible_soft_bits_of_what_is_broken(shape):
    feature, steps = _case(shape)
    step = steps.size(feature).expand(shape)
    magnitude = straight_through(feature.abs(), step)
    expected = soft_code_length(magnitude, feature, step)
    assert expected.isfinite().all()
    for i in range(3):
        for value in (math.nan, math.inf):
            case = [magnitude.clone(), feature.clone(), step.clone()]
            case[i][1].view(-1)[7] = value
            got = soft_code_length(*case)
            assert not got[1].isfinite(), (i, value)
            assert got[1].isnan() or value == math.inf
            assert torch.equal(got[::2], expected[::2])
    # as the quantizer in training meets it
    broken = feature.clone()
    broken[1].view(-1)[7] = math.nan
    got = soft_code_length(
        straight_through(broken.abs(), step), broken, step)
    assert got[1].isnan()


@pytest.mark.parametrize('shape', [(2, 8, 24, 24), (2, 300, 8), (2, 3000)])
@pytest.mark.parametrize('rounding', [0.5, 0.25])
def test_soft_code_length_is_the_code_length(shape, rounding):
    feature, steps = _case(shape)
    step = steps.size(feature)
    symbols = to_symbols(feature, step, rounding)
    magnitude = straight_through(feature.abs(), step, rounding)
    torch.testing.assert_close(
        soft_code_length(magnitude, feature, step),
        code_length(QuantizedLevel(symbols, steps)), rtol=0.05, atol=0)


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('scale', [2.0**-4, 1.0, 2.0**4])
def test_soft_code_length_where_steps_vary_by_a_thousand(relu, scale):
    """Not on the grid, and in the form that the model takes, too."""
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 8, 32, 32, generator=generator)
    feature = feature.relu() if relu else feature
    octaves = torch.rand(2, 1, 32, 32, generator=generator) * 10 - 5
    wide = make_steps(octaves * math.log(2), 'token').scaled(scale)
    got = []
    for step in (wide.size(feature), scale * octaves.exp2()):
        magnitude = straight_through(feature.abs(), step)
        got.append(soft_code_length(magnitude, feature, step))
    symbols = to_symbols(feature, wide.size(feature))
    expected = code_length(QuantizedLevel(symbols, wide))
    torch.testing.assert_close(got[0], expected, rtol=0.01, atol=0)
    torch.testing.assert_close(got[1], expected, rtol=0.05, atol=0)


@pytest.mark.parametrize('shape', LAYOUTS)
def test_soft_code_length_has_finite_gradients(shape):
    for scale in (1e-3, 1.0, 1e3):
        feature, steps = _case(shape)
        channel = 2 if len(shape) == 3 else 1
        feature.select(channel, 0).zero_()
        step = (steps.size(feature) * scale).expand(
            shape).clone().requires_grad_()
        magnitude = straight_through(feature.abs(), step)
        bits = soft_code_length(magnitude, feature, step)
        grad, = torch.autograd.grad(bits.sum(), step)
        assert torch.isfinite(bits).all() and (bits >= 0).all()
        assert torch.isfinite(grad).all()
    step = torch.ones(shape, requires_grad=True)
    dead = torch.zeros(shape)
    bits = soft_code_length(straight_through(dead, step), dead, step)
    grad, = torch.autograd.grad(bits.sum(), step)
    assert torch.isfinite(grad).all()
    assert bits.max() < 0.01 * dead[0].numel()


def test_larger_steps_are_cheaper_by_the_gradient():
    """The gradient's direction is the one that a finite difference sees."""
    feature, steps = _case((1, 8, 24, 24), scale=0.7)
    base = steps.size(feature).expand(feature.shape)

    def bits(factor):
        step = base * factor
        symbols = to_symbols(feature, step)
        return soft_code_length(symbols.abs(), feature, step)

    factor = torch.ones(1, requires_grad=True)
    step = base * factor
    soft = soft_code_length(
        straight_through(feature.abs(), step), feature, step)
    grad, = torch.autograd.grad(soft.sum(), factor)
    change = ((bits(1.2) - bits(1 / 1.2)) / (1.2 - 1 / 1.2)).item()
    assert change < 0 and grad.item() < 0
    assert 0.3 < grad.item() / change < 3


@pytest.mark.parametrize('shape', [(0, 5, 6, 7), (0, 30, 5), (0, 40)])
def test_no_image_takes_no_bits(shape):
    none = torch.zeros(shape)
    assert soft_code_length(none, none, torch.ones(())).shape == (0, )
