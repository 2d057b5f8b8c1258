import math

import numpy as np
import pytest
import torch

from mmfeatjnd.functional import (
    Steps,
    clip_range,
    clip_steps,
    gradient_log_steps,
    jnd_log_steps,
    jnd_rounding,
    make_steps,
    quantize,
    quantize_dequantize,
    range_log_steps,
    to_tokens,
    uniform_log_steps,
    water_filling_steps,
)

LAYOUTS = [(2, 3, 4, 5), (2, 7, 3), (2, 6)]


def _tokens(x):
    return to_tokens(x).double().numpy()


# ---------------------------------------------------------------------- JND
def test_jnd_steps_are_twice_the_envelope():
    envelope = torch.tensor([[[[0.5, 2.0]], [[0.0, 4.0]]]])
    log = jnd_log_steps(envelope)
    mean = (math.log(1) + math.log(4) + math.log(8)) / 3
    torch.testing.assert_close(
        log.exp().flatten(), torch.tensor([1.0, 4.0, math.exp(mean), 8.0]))


def test_jnd_of_a_dead_image_has_a_finite_gradient():
    envelope = torch.zeros(1, 2, 3, 3, requires_grad=True)
    log = jnd_log_steps(envelope)
    grad, = torch.autograd.grad(log.sum(), envelope)
    assert torch.isfinite(log).all() and torch.isfinite(grad).all()


def test_jnd_rounding_by_hand():
    # E = 0.1, 0.25, 0.5, 0.75 and a step of 1
    log_step = (2 * torch.tensor([[0.1, 0.25, 0.5, 0.75]])).log()
    rho = jnd_rounding(log_step, Steps(torch.ones(1)))
    torch.testing.assert_close(rho, torch.tensor([[0.5, 0.5, 0.5, 0.25]]))


@pytest.mark.parametrize('granularity', ['tensor', 'token', 'channel-token'])
def test_jnd_rounding_stays_within_the_jnd(granularity):
    torch.manual_seed(0)
    tolerance = (torch.randn(2, 6, 8, 8) * 0.7).exp()
    feature = torch.randn(2, 6, 8, 8) * 4
    log_step = jnd_log_steps(tolerance)
    steps = make_steps(log_step, granularity)
    step = steps.size(feature).expand(feature.shape)
    rho = jnd_rounding(log_step, steps)
    assert rho.min() >= 0 and rho.max() <= 0.5
    error = (quantize_dequantize(feature, step, rho) - feature).abs()
    wide = tolerance >= step / 2
    assert wide.any() and not wide.all()
    assert (error <= tolerance * (1 + 1e-4))[wide].all()
    assert (error <= step / 2 * (1 + 1e-4))[~wide].all()
    # never dearer than plain rounding, and cheaper somewhere
    cheap, plain = quantize(feature, step, rho), quantize(feature, step)
    assert (cheap.abs() <= plain.abs()).all() and not cheap.equal(plain)


# ---------------------------------------------------------------- baselines
def test_uniform_is_the_rms():
    feature = torch.stack([torch.tensor([3., -4.]), torch.zeros(2)])
    log = uniform_log_steps(feature)
    assert log.shape == (2, 1)
    assert log.exp().flatten().tolist() == pytest.approx(
        [math.sqrt(12.5), 1.0])


@pytest.mark.parametrize('shape', LAYOUTS)
def test_range_against_loops(shape):
    torch.manual_seed(2)
    feature = torch.randn(shape)
    tokens = to_tokens(feature)
    if tokens.size(1) > 1:
        tokens[0, 1] = 0  # a view of the feature
    x = _tokens(feature)
    got = _tokens(range_log_steps(feature))
    for b in range(shape[0]):
        peak = np.abs(x[b]).max(1)
        log = np.log(peak[peak > 0])
        for t, value in enumerate(peak):
            wanted = math.log(value) if value else log.mean()
            assert got[b, t, 0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize('shape', LAYOUTS)
def test_gradient_against_loops(shape):
    torch.manual_seed(3)
    w, feature = torch.rand(shape)**4, torch.randn(shape)
    x, f = _tokens(w), _tokens(feature)
    got = _tokens(gradient_log_steps(w, feature))
    for b in range(shape[0]):
        x[b] /= x[b].mean()
        rank_one = x[b].mean(1)[:, None] * x[b].mean(0)[None]
        log = -0.5 * np.log(rank_one + 0.01)
        log += np.log(np.sqrt((f[b]**2).mean())) - log.mean()
        np.testing.assert_allclose(got[b], log, atol=1e-4)


def test_gradient_of_zero_is_uniform():
    feature = torch.randn(2, 3, 4, 4)
    log = gradient_log_steps(torch.zeros(2, 3, 4, 4), feature)
    torch.testing.assert_close(
        log, uniform_log_steps(feature).expand(log.shape))


@pytest.mark.parametrize('shape', LAYOUTS)
def test_water_filling_drops_what_is_below_the_level(shape):
    torch.manual_seed(4)
    channel = 2 if len(shape) == 3 else 1
    size = [shape[d] if d == channel else 1 for d in range(len(shape))]
    spread = 10.0**torch.linspace(-2, 1, shape[channel])
    feature = torch.randn(shape) * spread.view(size)
    for base in (0.01, 0.5, 3.0):
        steps = water_filling_steps(
            Steps(torch.full((2, ), base)), feature)
        level = _tokens(quantize(feature, steps.size(feature)))
        size_ = _tokens(steps.size(feature).expand(shape))
        x = _tokens(feature)
        for b in range(shape[0]):
            for c in range(x.shape[2]):
                if (x[b, :, c]**2).mean() < base**2 / 12:
                    assert not level[b, :, c].any()
                else:
                    assert size_[b, :, c] == pytest.approx(base)


def test_clip_range_against_brute_force():
    torch.manual_seed(5)
    feature = torch.randn(3, 200)**3
    feature[1].abs_()  # non-negative, and a flat one
    feature[2] = 0
    for levels in (2, 4, 9):
        got = clip_range(feature, levels)
        for b in range(2):
            x = feature[b].double().numpy()
            low, high = min(x.min(), 0), max(x.max(), 0)
            errors = {}
            for i in range(1, 33):
                grid = np.linspace(low * i / 32, high * i / 32, levels)
                nearest = np.abs(x[:, None] - grid).min(1)
                errors[i] = (nearest**2).mean()
            best = min(errors.values())
            share = got[b, 1].item() / high
            assert share * 32 == pytest.approx(round(share * 32), abs=1e-3)
            assert errors[round(share * 32)] == pytest.approx(best, rel=1e-3)
            assert got[b, 0].item() == pytest.approx(low * share, abs=1e-5)
        assert got[2].tolist() == [0, 0]


def test_clip_steps_have_the_ends_as_levels():
    bounds = torch.tensor([[-1.0, 2.0], [0.0, 6.0], [0.0, 0.0]])
    steps = clip_steps(bounds, 4)
    assert steps.base.tolist() == [1, 2, 1]
    x = bounds
    offset = steps.offset[:, None]
    value = quantize_dequantize(x, steps.base[:, None], offset=offset)
    torch.testing.assert_close(value, bounds)
    # level 0 is the one nearest to 0
    assert (steps.offset.abs() <= steps.base / 2).all()
    uneven = clip_steps(torch.tensor([[-1.0, 3.0]]), 4)
    level = quantize(
        torch.linspace(-1, 3, 50)[None], uneven.base[:, None],
        offset=uneven.offset[:, None])
    assert level.unique().tolist() == [-1, 0, 1, 2]
