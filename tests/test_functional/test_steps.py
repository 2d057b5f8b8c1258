import math

import numpy as np
import pytest
import torch

from mmfeatjnd.functional import (
    GRANULARITIES,
    Allocation,
    Steps,
    make_steps,
    modelled_noise,
    quantize,
)
from mmfeatjnd.functional.steps import MAX_EXPONENT, half_octaves

LAYOUTS = [(2, 3, 4, 5), (2, 7, 3), (2, 6)]


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
    error = quantize(x, Allocation(steps))[1] - x
    torch.testing.assert_close(
        error.square().flatten(1).mean(1), modelled_noise(steps, x),
        rtol=0.05, atol=0)
