import math

import numpy as np
import pytest
import torch

from mmfeatjnd.functional import (
    Allocation,
    QuantizedLevel,
    Steps,
    bisect_scale,
    clip_cover,
    clip_range,
    clip_steps,
    code_length,
    gradient_log_steps,
    jnd_log_steps,
    jnd_rounding,
    make_steps,
    quantize,
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
    jnd = (torch.randn(2, 6, 8, 8) * 0.7).exp()
    feature = torch.randn(2, 6, 8, 8) * 4
    log_step = jnd_log_steps(jnd)
    steps = make_steps(log_step, granularity)
    step = steps.size(feature).expand(feature.shape)
    rho = jnd_rounding(log_step, steps)
    assert rho.min() >= 0 and rho.max() <= 0.5
    cheap, value = quantize(feature, Allocation(steps, rho))
    error = (value - feature).abs()
    wide = jnd >= step / 2
    assert wide.any() and not wide.all()
    assert (error <= jnd * (1 + 1e-4))[wide].all()
    assert (error <= step / 2 * (1 + 1e-4))[~wide].all()
    # never dearer than plain rounding, and cheaper somewhere
    cheap, plain = cheap.symbols, quantize(feature,
                                           Allocation(steps))[0].symbols
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
def test_water_filling_drops_what_is_below_the_water_level(shape):
    torch.manual_seed(4)
    channel = 2 if len(shape) == 3 else 1
    size = [shape[d] if d == channel else 1 for d in range(len(shape))]
    spread = 10.0**torch.linspace(-2, 1, shape[channel])
    feature = torch.randn(shape) * spread.view(size)
    for base in (0.01, 0.5, 3.0):
        steps = water_filling_steps(
            Steps(torch.full((2, ), base)), feature)
        symbols = _tokens(quantize(feature, Allocation(steps))[0].symbols)
        size_ = _tokens(steps.size(feature).expand(shape))
        x = _tokens(feature)
        for b in range(shape[0]):
            for c in range(x.shape[2]):
                if (x[b, :, c]**2).mean() < base**2 / 12:
                    assert not symbols[b, :, c].any()
                else:
                    assert size_[b, :, c] == pytest.approx(base)


# ------------------------------------------------------------------- clipping
def _clipped(feature, bounds, bins):
    """Symbols and values of a clipping quantizer."""
    quantized, value = quantize(
        feature, Allocation(clip_steps(bounds, bins), bounds=bounds))
    return quantized.symbols, value


def _mse(feature, bounds, bins):
    return (_clipped(feature, bounds, bins)[1] - feature).square().mean(1)


DISTRIBUTIONS = dict(
    gaussian=lambda x: x,
    relu=lambda x: x.relu(),
    leaky=lambda x: torch.where(x > 0, x, x / 10),
    heavy=lambda x: x**3,
    shifted=lambda x: x + 1,
    negative=lambda x: -x.abs(),
    alternating=lambda x: x.sign())


@pytest.mark.parametrize('bins', [2, 3, 4, 8, 9])
@pytest.mark.parametrize('name', DISTRIBUTIONS)
def test_clip_range_has_the_least_error_of_all_grids_with_0(name, bins):
    """Against every place of 0 on 2,000 grids."""
    torch.manual_seed(5)
    feature = DISTRIBUTIONS[name](torch.randn(2, 300))
    error = _mse(feature, clip_range(feature, bins), bins)
    for x, got in zip(feature.double().numpy(), error.tolist()):
        peak = np.abs(x).max()
        best = math.inf
        for step in np.geomspace(peak / 300, peak, 2000):
            near = np.round(x / step)
            for below in range(bins):
                symbols = near.clip(-below, bins - 1 - below)
                best = min(best, ((symbols * step - x)**2).mean())
        assert got <= best * 1.005 + 1e-12


@pytest.mark.parametrize('bins', [2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize('name', DISTRIBUTIONS)
def test_clipping_keeps_0_and_the_number_of_bins(name, bins):
    torch.manual_seed(6)
    feature = DISTRIBUTIONS[name](torch.randn(3, 500))
    feature[:, :50] = 0
    bounds = clip_range(feature, bins)
    for scale in (0.3, 1., 1.7):
        symbols, value = _clipped(feature, bounds * scale, bins)
        assert not value[feature == 0].any()
        for q, (low, high) in zip(symbols, bounds / clip_steps(bounds, bins)
                                  .base[:, None]):
            # the outermost lie on the ends of the range
            assert low.item() == pytest.approx(round(low.item()), abs=1e-5)
            assert high - low == pytest.approx(bins - 1, abs=1e-4)
            assert q.min() >= round(low.item())
            assert q.max() <= round(high.item())


def test_error_falls_with_the_number_of_bins():
    torch.manual_seed(7)
    noise = torch.randn(1, 5000)
    for feature in (noise, noise.relu(), noise**3):
        errors = [
            _mse(feature, clip_range(feature, n), n).item()
            for n in range(2, 18)
        ]
        assert all(a > b for a, b in zip(errors, errors[1:]))
        assert errors[0] < feature.square().mean()


def test_the_bin_at_0_costs_little_where_there_are_several():
    """Against the mean squared errors of the best uniform quantizers of a
    Gaussian (Max, Quantizing for minimum distortion, IRE Trans. Inf. Theory,
    1960), which have no value at 0 where their number is even."""
    torch.manual_seed(8)
    feature = torch.randn(1, 200000)
    for bins, best in ((3, 0.1902), (5, 0.08218), (8, 0.03744),
                         (16, 0.01154)):
        error = _mse(feature, clip_range(feature, bins), bins).item()
        assert error == pytest.approx(best, rel=0.1)
        if bins % 2:
            assert error == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize('name', ['gaussian', 'relu', 'alternating'])
@pytest.mark.parametrize('bins', [2, 3, 4, 8, 16])
def test_clipping_against_one_step_at_equal_bits(name, bins):
    torch.manual_seed(9)
    feature = DISTRIBUTIONS[name](torch.randn(1, 4000))
    bounds = clip_range(feature, bins)
    cover = clip_cover(feature, bounds)

    def cost(symbols, value):
        error = (value - feature).square().mean().sqrt()
        unit = QuantizedLevel(symbols, Steps(torch.ones(1)))
        return (code_length(unit).item(),
                (error / feature.square().mean().sqrt()).item())

    rates, errors = [], []
    for share in torch.linspace(0, 1, 9):
        bits, error = cost(*_clipped(feature, bounds * cover**share, bins))

        def rate(step):
            quantized, _ = quantize(feature, Allocation(Steps(step)))
            return code_length(quantized)

        step = bisect_scale(rate, torch.tensor([bits]), increasing=False)
        quantized, value = quantize(feature, Allocation(Steps(step)))
        other = cost(quantized.symbols, value)[1]
        assert error < 1.25 * other + 1e-6
        rates.append(bits)
        errors.append(error)
    # the search goes one way, and cannot explode
    assert rates == sorted(rates, reverse=True)
    assert errors == sorted(errors) and errors[-1] <= 1


def test_clip_cover_by_hand():
    bounds = torch.tensor([[-1., 2.], [0., 2.], [-3., 6.], [-1., 0.],
                           [-1., 1.]])
    feature = torch.tensor([[-4., 4.], [-9., 4.], [-1., 2.], [2., 3.],
                            [math.nan, 1.]])
    cover = clip_cover(feature, bounds)
    # an end at 0 stays there; one with nothing beyond is not moved
    assert cover[:4].tolist() == [4, 2, 1, 1] and cover[4].isnan()


def test_clipping_takes_the_coarsest_of_equal_grids():
    """All errors are 0: bins far from 0 would only cost more bits."""
    feature = torch.tensor([[-1., 1., 0., 1.], [0., 2., 2., 2.],
                            [-3., -3., -3., -3.]])
    for bins in (3, 4, 8):
        symbols, value = _clipped(feature, clip_range(feature, bins), bins)
        assert torch.equal(value, feature)
        assert torch.equal(symbols, feature.sign())
    feature = torch.tensor([[0., 1., 2., 3.]])
    assert torch.equal(
        _clipped(feature, clip_range(feature, 4), 4)[1], feature)


def test_clipping_of_odd_images():
    one = torch.tensor([[-0.3], [0.], [2.]])
    bounds = clip_range(one, 4)
    assert bounds.isfinite().all() and (bounds[:, 0] < bounds[:, 1]).all()
    torch.testing.assert_close(_clipped(one, bounds, 4)[1], one)
    assert clip_cover(one, bounds).tolist() == [1, 1, 1]
    none = torch.zeros(0, 5)
    assert clip_range(none, 4).shape == (0, 2)
    assert clip_cover(none, clip_range(none, 4)).shape == (0, )
    # an image alone, and in a batch of others
    feature = torch.randn(4, 60) * torch.tensor([1., 1e-3, 1e6, 30.])[:, None]
    together = clip_range(feature, 5)
    for i in range(4):
        assert torch.equal(clip_range(feature[i:i + 1], 5)[0], together[i])
    # in any unit, and in any precision
    torch.testing.assert_close(
        clip_range(feature[:1] * 1e36, 5), together[:1] * 1e36)
    torch.testing.assert_close(clip_range(feature.double(), 5), together)


def test_clip_steps_by_hand():
    bounds = torch.tensor([[-1., 2.], [0., 6.], [0., 0.]])
    steps = clip_steps(bounds, 4)
    assert steps.base.tolist() == [1, 2, 1]
    symbols, value = _clipped(
        torch.tensor([[-5., 5.], [-5., 9.], [0., 0.]]), bounds, 4)
    assert value.tolist() == [[-1, 2], [0, 6], [0, 0]]
    assert symbols.tolist() == [[-1, 2], [0, 3], [0, 0]]


# ------------------------------------------------------------ what is broken
@pytest.mark.parametrize('shape', LAYOUTS)
def test_no_plausible_steps_from_what_is_broken(shape):
    """An image with a NaN gets no steps, and the others theirs."""
    torch.manual_seed(10)
    whole = torch.rand(shape) + 0.1
    broken = whole.clone()
    broken[1].view(-1)[2] = math.nan

    def check(function):
        got, expected = function(broken), function(whole)
        assert got[1].isnan().all() and torch.equal(got[0], expected[0])

    def size(steps):
        return steps.size(whole).expand(shape)

    check(lambda x: size(make_steps(jnd_log_steps(x), 'channel-token')))
    check(lambda x: uniform_log_steps(x))
    check(lambda x: size(make_steps(range_log_steps(x), 'token')))
    check(lambda x: gradient_log_steps(whole, x))
    check(lambda x: gradient_log_steps(x, whole))
    check(lambda x: clip_range(x.flatten(1), 4))
    check(lambda x: clip_steps(clip_range(x.flatten(1), 4), 4).base)
    check(lambda x: size(
        water_filling_steps(make_steps(uniform_log_steps(x), 'tensor'), x)))


@pytest.mark.parametrize('shape', LAYOUTS)
@pytest.mark.parametrize('unit', [1e37, 1e-30])
def test_steps_do_not_depend_on_the_unit(shape, unit):
    torch.manual_seed(11)
    feature = torch.randn(shape)
    w = torch.rand(shape)

    def all_steps(x, unit):
        uniform = make_steps(uniform_log_steps(x), 'tensor')
        return [
            uniform.size(x), water_filling_steps(uniform, x).size(x),
            make_steps(range_log_steps(x), 'token').size(x),
            make_steps(gradient_log_steps(w, x), 'channel-token').size(x),
            make_steps(jnd_log_steps(x.abs()), 'channel-token').size(x),
            clip_range(x, 4)
        ]

    for got, expected in zip(
            all_steps(feature * unit, unit), all_steps(feature, 1.)):
        torch.testing.assert_close(
            got / unit, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize('shape', [(2, 1, 1, 1), (2, 1, 1), (2, 1),
                                   (1, 3, 2, 2), (0, 3, 2, 2), (0, 4)])
def test_steps_of_odd_shapes_are_positive(shape):
    for feature in (torch.zeros(shape), torch.full(shape, -7.)):
        uniform = make_steps(uniform_log_steps(feature), 'tensor')
        for steps in (
                uniform, water_filling_steps(uniform, feature),
                make_steps(range_log_steps(feature), 'token'),
                make_steps(
                    gradient_log_steps(feature.abs(), feature), 'element'),
                make_steps(jnd_log_steps(feature.abs()), 'channel-token'),
                clip_steps(clip_range(feature, 3), 3)):
            size = steps.size(feature).expand(shape)
            assert size.isfinite().all() and (size > 0).all()
            _, value = quantize(feature, Allocation(steps))
            assert value.isfinite().all() and value.shape == shape
