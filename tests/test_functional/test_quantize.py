import math

import numpy as np
import pytest
import torch

from mmfeatjnd.functional import (
    GRANULARITIES,
    Steps,
    additive_noise,
    dequantize,
    image_keys,
    make_steps,
    modelled_noise,
    quantize,
    quantize_dequantize,
    saturate,
    saturated,
    straight_through,
)
from mmfeatjnd.functional.quantize import (
    MAX_EXPONENT,
    MAX_LEVEL,
    half_octaves,
)

LAYOUTS = [(2, 3, 4, 5), (2, 7, 3), (2, 6)]


def _row(*values):
    return torch.tensor([values], dtype=torch.float32)


# ---------------------------------------------------------------- quantizer
@pytest.mark.parametrize('rounding, expected', [
    (0.5, [0, 0, 1, 1, 2, 3, -1, -3]),
    (0.25, [0, 0, 0, 1, 1, 2, -1, -2]),
    (0.0, [0, 0, 0, 1, 1, 2, -1, -2]),
])
def test_rounding_by_hand(rounding, expected):
    x = _row(0, 0.4, 0.6, 1.2, 1.5, 2.5, -1.3, -2.6)
    level = quantize(x, torch.tensor(1.0), rounding)
    assert level.tolist() == [expected]
    # half the size, half the step
    half = quantize(x / 2, torch.tensor(0.5), rounding)
    assert half.tolist() == [expected]


def test_threshold_is_one_minus_rounding():
    for rounding in (0.5, 0.3, 0.125, 0.0):
        threshold = 1 - rounding
        x = _row(threshold - 1e-3, threshold + 1e-3, -threshold + 1e-3,
                 -threshold - 1e-3, 4 + threshold - 1e-3,
                 4 + threshold + 1e-3)
        level = quantize(x, torch.tensor(1.0), rounding)
        assert level.tolist() == [[0, 1, 0, -1, 4, 5]]


def test_deadzone_by_hand():
    x = _row(0.6, 0.74, 0.75, 1.4, 1.6, -0.74, -0.76)
    level = quantize(x, torch.tensor(1.0), deadzone=0.75)
    assert level.tolist() == [[0, 0, 1, 1, 2, 0, -1]]
    level = quantize(x, torch.tensor(1.0), deadzone=1.5)
    assert level.tolist() == [[0, 0, 0, 0, 2, 0, 0]]


def test_offset_by_hand():
    x = _row(-1, 1, 3, 9)
    level = quantize(x, torch.tensor(2.0), offset=1.0)
    assert level.tolist() == [[-1, 0, 1, 4]]
    assert dequantize(
        level, torch.tensor(2.0), offset=1.0).tolist() == x.tolist()


def test_reconstruction_by_hand():
    level = _row(-2, -1, 0, 1, 2)
    value = dequantize(level, torch.tensor(2.0), reconstruction=-0.25)
    assert value.tolist() == [[-3.5, -1.5, 0, 1.5, 3.5]]


def test_levels_are_clamped_to_16_bits():
    level = quantize(_row(1e6, -1e6, 32767, 32766.4), torch.tensor(1.0))
    assert level.tolist() == [[32767, -32767, 32767, 32766]]
    assert MAX_LEVEL == 32767


def test_saturation_is_told():
    """Finer steps make more noise once the levels end."""
    x = torch.randn(2, 1000).clamp(-3, 3)
    x[1, ::4] = 40.
    for step, share in ((1e-3, [0, 0]), (40 / 32766, [0, 0]),
                        (1.2e-3, [0, 0.25]), (1e-9, [1, 1])):
        level = quantize(x, torch.tensor(step))
        got = saturated(level).tolist()
        if step == 1e-3:  # 40 needs 40000 levels
            share = [0, 0.25]
        assert got == pytest.approx(share, abs=1e-6), step
    fine, finer = (
        (quantize_dequantize(x, torch.tensor(step)) - x)[1].abs().max()
        for step in (40 / 32766, 1e-4))
    assert fine < 1e-3 and finer > 30


def test_saturation_by_hand():
    level = torch.tensor([[32767., -32767., 32766., 0.], [1., 2., 3., -4.]])
    assert saturated(level).tolist() == [0.5, 0]
    level[1, 2] = math.nan
    assert saturated(level)[0] == 0.5 and saturated(level)[1].isnan()
    assert saturated(torch.zeros(0, 3, 2)).shape == (0, )


def test_what_is_no_number_stays_so():
    x = torch.ones(3, 4)
    x[1, 2] = math.nan
    level = quantize(x, torch.tensor(0.3))
    assert level[1].isnan().tolist() == [False, False, True, False]
    assert not level[::2].isnan().any()
    step = torch.tensor([[1.], [math.nan], [1.]])
    level = quantize(torch.ones(3, 4), step, deadzone=0.7)
    assert level.isnan().all(1).tolist() == [False, True, False]


@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_steps_of_no_number_break_their_image_only(granularity):
    log_step = torch.randn(3, 4, 5, 5)
    expected = make_steps(log_step, granularity)
    log_step[1, 2, 3, 3] = math.nan
    steps = make_steps(log_step, granularity)
    size, whole = (
        x.size(log_step).expand(log_step.shape) for x in (steps, expected))
    assert size[1].isnan().all() and torch.equal(size[::2], whole[::2])
    for exponent in steps[1:4]:  # integers within what is coded
        assert exponent is None or exponent.abs().max() <= MAX_EXPONENT


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_features_are_quantized_in_float32(dtype):
    x = torch.randn(2, 4, 3, 3).to(dtype)
    step = torch.full((2, 1, 1, 1), 0.1)
    level = quantize(x, step)
    assert level.dtype == torch.float32
    torch.testing.assert_close(level, quantize(x.float(), step), rtol=0,
                               atol=0)


@pytest.mark.parametrize('dtype', [
    torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_return_to_the_dtype_of_the_features(dtype):
    x = torch.tensor([[1., -2., 3.25]], dtype=dtype)
    value = saturate(quantize_dequantize(x, torch.tensor(0.25)), dtype)
    assert value.dtype == dtype and torch.equal(value, x)
    # what overflowed ends at the end of the range
    largest = torch.finfo(dtype).max
    largest = min(largest, torch.finfo(torch.float32).max)
    ends = saturate(torch.tensor([math.inf, -math.inf, math.nan]), dtype)
    assert ends[:2].tolist() == [largest, -largest] and ends[2].isnan()


def test_double_precision_is_quantized_in_float32():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    level = quantize(x, torch.tensor(0.1))
    assert level.dtype == torch.float32
    assert torch.equal(level, quantize(x.float(), torch.tensor(0.1)))
    steps = make_steps(x, 'channel-token')
    assert steps.base.dtype == steps.size(x).dtype == torch.float32


def test_steps_and_rounding_for_every_element():
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    step = torch.tensor([[0.5, 1.0, 1.6, 1.6]])
    rounding = torch.tensor([[0.5, 0.5, 0.5, 0.3]])
    assert quantize(x, step, rounding).tolist() == [[2, 1, 1, 0]]
    torch.testing.assert_close(
        quantize_dequantize(x, step, rounding),
        torch.tensor([[1.0, 1.0, 1.6, 0.0]]))


def test_error_is_at_most_half_a_step():
    torch.manual_seed(0)
    x, step = torch.randn(3, 8, 5, 5), torch.rand(3, 8, 5, 5) + 0.01
    error = (quantize_dequantize(x, step) - x).abs()
    assert (error <= step / 2 * (1 + 1e-5)).all()
    assert error.max() > step.max() / 4


# -------------------------------------------------------------------- steps
def test_half_octaves_are_the_nearest_floats():
    exponent = torch.arange(-192, 193)
    # in integers: sqrt(2) rounded to 24 bits, times a power of two
    root = np.float32(math.sqrt(2))
    exact = [float(root if e & 1 else 1) * 2.0**(e >> 1)
             for e in exponent.tolist()]
    assert half_octaves(exponent).double().tolist() == exact
    torch.testing.assert_close(
        half_octaves(exponent).double(), 2.0**(exponent.double() / 2),
        rtol=2**-24, atol=0)
    assert half_octaves(exponent.int()).dtype == torch.float32
    assert 192 == 3 * MAX_EXPONENT


def test_half_octaves_take_a_gradient():
    x = torch.tensor([2.0, -3.0], requires_grad=True)
    y = half_octaves(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() * math.log(2) / 2)


@pytest.mark.parametrize('shape', LAYOUTS)
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_make_steps_against_plain_loops(shape, granularity):
    torch.manual_seed(1)
    log_step = torch.randn(shape) * 2
    steps = make_steps(log_step, granularity)
    channel = 2 if len(shape) == 3 else 1
    x = np.moveaxis(log_step.double().numpy(), channel, -1)
    x = x.reshape(shape[0], -1, shape[channel])  # (B, T, C)
    grid = 2 / math.log(2)
    got = steps.size(log_step).expand(shape).double().numpy()
    got = np.moveaxis(got, channel, -1).reshape(x.shape)
    for b in range(shape[0]):
        mean = x[b].mean()
        for t in range(x.shape[1]):
            for c in range(x.shape[2]):
                e = 0
                if granularity in ('token', 'channel-token'):
                    e += round((x[b, t].mean() - mean) * grid)
                if granularity in ('channel', 'channel-token'):
                    e += round((x[b, :, c].mean() - mean) * grid)
                if granularity == 'element':
                    e += round((x[b, t, c] - mean) * grid)
                expected = math.exp(mean) * 2**(e / 2)
                assert got[b, t, c] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('shape', LAYOUTS)
def test_exponents_have_their_shapes(shape):
    channel = 2 if len(shape) == 3 else 1
    token = tuple(1 if d == channel else n for d, n in enumerate(shape))
    per_channel = tuple(n if d in (0, channel) else 1
                        for d, n in enumerate(shape))
    wanted = {
        'tensor': (None, None, None),
        'token': (token, None, None),
        'channel': (None, per_channel, None),
        'channel-token': (token, per_channel, None),
        'element': (None, None, shape)
    }
    for granularity, shapes in wanted.items():
        steps = make_steps(torch.randn(shape), granularity)
        got = tuple(None if x is None else tuple(x.shape)
                    for x in (steps.token, steps.channel, steps.element))
        assert got == shapes, granularity
        assert steps.base.shape == shape[:1]
        assert not any(x.is_floating_point() for x in steps[1:4]
                       if x is not None)


def test_separable_model_by_hand():
    # (B, C, H, W) = (1, 2, 1, 2), in half octaves about base 1
    half = math.log(2) / 2
    log_step = torch.tensor([[[[-3., -1.]], [[1., 3.]]]]) * half
    steps = make_steps(log_step, 'channel-token')
    assert steps.base.item() == pytest.approx(1)
    assert steps.token.flatten().tolist() == [-1, 1]
    assert steps.channel.flatten().tolist() == [-2, 2]
    assert steps.exponent.flatten().tolist() == [-3, -1, 1, 3]


def test_extreme_wishes_are_clamped():
    log_step = torch.zeros(1, 4, 1, 1)
    log_step[0, 0] = 80.0
    steps = make_steps(log_step, 'channel')
    assert steps.channel.max() == MAX_EXPONENT
    assert torch.isfinite(steps.size(log_step)).all()


def test_constant_dims_may_have_size_1():
    log_step = torch.randn(2, 1, 4, 5)
    steps = make_steps(log_step, 'token')
    full = make_steps(log_step.expand(2, 3, 4, 5), 'token')
    assert torch.equal(steps.token, full.token)
    torch.testing.assert_close(steps.base, full.base)


def test_make_steps_passes_the_gradient_straight_through():
    log_step = torch.randn(2, 3, 2, 2, requires_grad=True)
    step = make_steps(log_step, 'element').size(log_step)
    grad, = torch.autograd.grad(step.sum(), log_step)
    # d exp(l) / d l, as if nothing was rounded
    torch.testing.assert_close(grad, step.detach(), rtol=1e-4, atol=1e-5)


def test_unknown_granularity():
    with pytest.raises(ValueError, match="granularity.*'tokens'"):
        make_steps(torch.zeros(1, 2, 2, 2), 'tokens')


def test_scaled_by_numbers_and_images():
    steps = Steps(torch.tensor([1.0, 2.0]), token=torch.ones(2, 1))
    assert steps.scaled(3).base.tolist() == [3, 6]
    assert steps.scaled(torch.tensor([2.0, 0.5])).base.tolist() == [2, 1]
    assert steps.scaled(3).token is steps.token


def test_modelled_noise_by_hand():
    steps = Steps(torch.tensor([1.0, 2.0]),
                  channel=torch.tensor([[0, 2], [0, 4]]))
    # steps (1, 2) and (2, 8)
    noise = modelled_noise(steps, torch.zeros(2, 2))
    torch.testing.assert_close(noise, torch.tensor([5 / 24, 68 / 24]))


def test_model_agrees_with_measured_noise_of_fine_steps():
    torch.manual_seed(2)
    x = torch.randn(2, 16, 32, 32)
    steps = make_steps(torch.randn(2, 16, 32, 32) * 0.3 - 3, 'channel-token')
    error = quantize_dequantize(x, steps.size(x)) - x
    torch.testing.assert_close(
        error.square().flatten(1).mean(1), modelled_noise(steps, x),
        rtol=0.05, atol=0)


# ----------------------------------------------------------------- training
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
        straight_through(x, step, rounding), quantize(x, step, rounding),
        rtol=0, atol=2e-6)


def test_straight_through_gradient_by_hand():
    kappa, rho = 10.0, 0.4
    for f, delta in [(1.3, 0.8), (-1.3, 0.8), (0.05, 1.0), (2.55, 1.0)]:
        x = torch.tensor([[f]], requires_grad=True)
        step = torch.tensor([[delta]], requires_grad=True)
        rounding = torch.tensor([[rho]], requires_grad=True)
        level = straight_through(x, step, rounding, kappa)
        grads = torch.autograd.grad(level.sum(), (x, step, rounding))
        y = abs(f) / delta
        s = 1 / (1 + math.exp(-kappa * (y - math.floor(y) - 1 + rho)))
        slope = kappa * s * (1 - s)
        sign = math.copysign(1, f)
        # the sign of f enters twice: by |f|, and as the sign of the level
        assert grads[0].item() == pytest.approx(slope / delta, rel=1e-4)
        assert grads[1].item() == pytest.approx(-sign * slope * y / delta,
                                                rel=1e-4)
        assert grads[2].item() == pytest.approx(sign * slope, rel=1e-4)
