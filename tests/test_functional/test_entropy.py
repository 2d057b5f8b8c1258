import math

import numpy as np
import pytest
import torch
from scipy import stats

from mmfeatjnd.functional import (
    GRANULARITIES,
    Allocation,
    EntropyModel,
    QuantizedLevel,
    Steps,
    code_length,
    fit_entropy_model,
    make_steps,
    quantize,
)
from mmfeatjnd.functional.entropy import (
    CLASS_RANGE,
    MAX_CENTRE,
    MAX_SCALE,
    as_samples,
    class_table,
    scale_class,
)
from mmfeatjnd.functional.symbols import to_symbols

LAYOUTS = [(2, 5, 6, 7), (2, 30, 5), (2, 40)]


def _case(shape, granularity='channel-token', signed=True, scale=1.0, seed=0):
    """Features with exponential model, and steps that vary."""
    generator = torch.Generator().manual_seed(seed)
    channel = 2 if len(shape) == 3 else 1
    size = [1] * len(shape)
    size[channel] = shape[channel]
    spread = (torch.randn(size, generator=generator) * 0.7).exp()
    feature = torch.empty(shape).exponential_(generator=generator) * spread
    feature *= torch.rand(shape, generator=generator) < 0.6
    if signed:
        sign = torch.rand(shape, generator=generator) < 0.5
        feature = torch.where(sign, feature, -feature)
    log_step = torch.randn(shape, generator=generator) * 0.5
    steps = make_steps(log_step, granularity).scaled(scale)
    return feature, to_symbols(feature, steps.size(feature)), steps


def fitted(symbols, steps):
    return fit_entropy_model(QuantizedLevel(symbols, steps)).model


def length(symbols, steps, model=None):
    return code_length(QuantizedLevel(symbols, steps, model=model))


def one(scale, centre=0, rectified=0):
    return EntropyModel(*(torch.tensor([[x]], dtype=torch.int32)
                          for x in (scale, centre, rectified)))


# --------------------------------------------------------------------- tables
CASES = [(i, c, r) for i in (-18, -3, 0, 9, 15, 16, 19, 20, 33, 60)
         for c in (0, 3, -21, 80) for r in (False, True)]


@pytest.mark.parametrize('index, centre, rectified', CASES)
def test_a_table_is_the_logistic_distribution(index, centre, rectified):
    table = class_table(index, centre, rectified)
    ratio = 2**(index / 4)
    source = stats.logistic(centre / 4 * ratio, ratio)
    p = table.probabilities
    assert p.sum() == pytest.approx(1, abs=1e-6) and p.min() >= 2**-30
    assert len(p) < 500
    width = 2**table.bits
    before = 1 + table.zero
    assert table.zero == rectified
    if rectified:
        assert p[1] == pytest.approx(source.cdf(0.5), abs=1e-8)
        assert table.first >= 0
    for i in range(before, len(p) - 1, 7):
        low = table.shift + (table.first + i - before) * width - 0.5
        wanted = source.cdf(low + width) - source.cdf(low)
        assert p[i] == pytest.approx(wanted, abs=2e-9), i
    # hardly anything is beyond its ends
    assert p[0] < 1e-6 and (p[-1] < 1e-6 or centre < -20)


def test_wide_bins_are_nearly_even():
    """What the lowest bits cost as they are."""
    for index in range(16, 24):
        table = class_table(index, 0, False)
        ratio, width = 2**(index / 4), 2**table.bits
        source = stats.logistic(0, ratio)
        q = np.arange(-8 * int(ratio), 8 * int(ratio))
        exact = source.cdf(q + 0.5) - source.cdf(q - 0.5)
        bin = (q - table.shift >> table.bits) - table.first + 1
        coded = table.probabilities[bin] / width
        assert (exact * np.log2(exact / coded)).sum() < 1e-3


def test_scales_lie_on_quarter_octaves():
    scale = torch.tensor([0.0, 2**-10.2, 1.0, 3.0, math.inf, math.nan])
    assert scale_class(scale).tolist() == [-504, -41, 0, 6, 0, 0]


# ------------------------------------------------------------------------ fit
@pytest.mark.parametrize('step', [0.05, 0.4])
@pytest.mark.parametrize('centre, rectified', [
    (0, False), (1.7, False), (-1.2, True), (0.8, True)])
def test_fit_finds_the_parameters_of_a_logistic(step, centre, rectified):
    generator = np.random.default_rng(0)
    x = generator.logistic(centre, 0.6, (1, 1, 1000, 1))
    x = torch.from_numpy(x.clip(0) if rectified else x).float()
    quantized, _ = quantize(x, Allocation(Steps(torch.tensor([step]))))
    model = fit_entropy_model(quantized).model
    assert bool(model.rectified) == rectified
    scale = 2**(model.scale.item() / 4)
    assert scale == pytest.approx(0.6, rel=0.25)
    assert model.centre.item() / 4 * scale == pytest.approx(centre, abs=0.45)


def test_fit_sees_through_steps_that_vary():
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(
        np.random.default_rng(1).logistic(0, 0.7, (1, 1, 32, 32))).float()
    token = torch.randint(-6, 7, (1, 1, 32, 32), generator=generator)
    channel = torch.tensor([[[[5]]]])
    steps = Steps(torch.ones(1), token, channel)
    model = fitted(to_symbols(x, steps.size(x)), steps)
    assert abs(model.scale.item() - 4 * math.log2(0.7)) <= 1


def test_fitted_parameters_are_nearly_the_best():
    for signed in (True, False):
        _, symbols, steps = _case((1, 1, 30, 30), signed=signed)
        model = fitted(symbols, steps)
        least = length(symbols, steps).item()
        best = min(
            length(symbols, steps, model._replace(
                scale=model.scale + i, centre=model.centre + j)).item()
            for i in range(-3, 4) for j in range(-3, 4))
        assert least <= 1.005 * best


def test_dead_channels_cost_nothing():
    symbols = torch.zeros(1, 3, 20, 20)
    symbols[:, 1] = 5.0
    model = fitted(symbols, Steps(torch.ones(1)))
    assert (model.scale[0, ::2] <= CLASS_RANGE[0]).all()
    assert length(symbols, Steps(torch.ones(1))).item() < 1


def test_what_has_a_model_keeps_it():
    _, symbols, steps = _case((2, 5, 6, 7))
    quantized = fit_entropy_model(QuantizedLevel(symbols, steps))
    assert fit_entropy_model(quantized) is quantized
    assert torch.equal(quantized.symbols, symbols)
    other = quantized.model._replace(scale=quantized.model.scale + 3)
    worse = code_length(quantized._replace(model=other))
    assert (worse > code_length(quantized)).all()


def test_one_model_serves_all_images():
    """As that of a plan does."""
    _, symbols, steps = _case((2, 5, 6, 7))
    model = fitted(symbols[:1], Steps(*(
        None if x is None else x[:1] for x in steps)))
    both = EntropyModel(*(x.expand(2, -1) for x in model))
    assert torch.equal(length(symbols, steps, model),
                       length(symbols, steps, both))


@pytest.mark.parametrize('shape', LAYOUTS)
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_the_model_of_an_image_does_not_depend_on_its_batch(
        shape, granularity):
    """To the last bit: the coder writes what was fitted to a batch."""
    _, symbols, steps = _case(shape, granularity)
    quantized = QuantizedLevel(symbols, steps)
    together = fit_entropy_model(quantized)
    for i in range(2):
        alone = fit_entropy_model(quantized.of_image(i))
        for x, y in zip(alone.model, together.of_image(i).model):
            assert torch.equal(x, y)


@pytest.mark.parametrize('shape', LAYOUTS)
def test_parameters_stay_on_their_grids(shape):
    for scale in (1e-4, 1e-2, 1.0, 100.0):
        _, symbols, steps = _case(shape, scale=scale)
        model = fitted(symbols, steps)
        models = 1 if len(shape) == 2 else as_samples(symbols).size(2)
        assert model.scale.shape == model.centre.shape == (2, models)
        assert model.rectified.shape == (2, 1)
        assert all(x.dtype == torch.int32 for x in model)
        check_ranges(model, steps)


def check_ranges(model, steps):
    relative = model.scale - scale_class(steps.base)[:, None]
    assert relative.abs().max() <= MAX_SCALE
    assert model.centre.abs().max() <= MAX_CENTRE
    assert set(model.rectified.flatten().tolist()) <= {0, 1}


# -------------------------------------------------------------- code length
def _plain_length(symbols, steps, model):
    """The same in doubles by scipy, from the formula of the module."""
    samples = as_samples(symbols).double().numpy()
    step = as_samples(steps.size(symbols).expand(symbols.shape)).numpy()
    scale = 2**(model.scale[:, None].numpy() / 4)
    # the nearest class
    ratio = 2**(np.clip(np.round(4 * np.log2(scale)) - np.round(
        4 * np.log2(step)), *CLASS_RANGE) / 4)
    centre = model.centre[:, None].numpy() / 4
    high, low = ((samples + x) / ratio - centre for x in (0.5, -0.5))
    rectified = model.rectified[:, None].numpy() > 0
    low = np.where(rectified & (samples <= 0), -np.inf, low)
    both = np.maximum(stats.logistic.cdf(high) - stats.logistic.cdf(low),
                      stats.logistic.sf(low) - stats.logistic.sf(high))
    return -np.log2(both).reshape(len(samples), -1).sum(1)


@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('shape', LAYOUTS)
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_code_length_against_scipy(shape, granularity, signed):
    _, symbols, steps = _case(shape, granularity, signed)
    steps = steps._replace(base=(scale_class(steps.base) / 4).exp2())
    model = fitted(symbols, steps)
    np.testing.assert_allclose(
        length(symbols, steps).numpy(), _plain_length(symbols, steps, model),
        rtol=1e-4)


def test_code_length_by_hand():
    symbols = torch.tensor([[[0.], [1.], [0.], [-2.]]])

    def cdf(x):
        return 1 / (1 + math.exp(-x))

    zero = cdf(0.25) - cdf(-0.25)  # s is two steps
    other = cdf(0.75) - cdf(0.25), cdf(1.25) - cdf(0.75)
    expected = -2 * math.log2(zero) - sum(map(math.log2, other))
    got = length(symbols, Steps(torch.ones(1)), one(4))
    assert got.item() == pytest.approx(expected, rel=1e-5)
    # the same in another unit, and with a step that its exponent makes
    got = length(symbols, Steps(torch.full((1, ), 0.25)), one(-4))
    assert got.item() == pytest.approx(expected, rel=1e-5)
    steps = Steps(torch.ones(1), torch.full((1, 4, 1), -4))
    got = length(symbols, steps, one(-4))
    assert got.item() == pytest.approx(expected, rel=1e-5)
    # all that lies below 0 is 0
    symbols = symbols.abs()
    expected = -2 * math.log2(cdf(0.25)) - sum(map(math.log2, other))
    got = length(symbols, Steps(torch.ones(1)), one(4, 0, 1))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_code_length_is_near_the_entropy_of_its_source():
    x = np.random.default_rng(2).logistic(0, 0.8, 100000)
    symbols = torch.from_numpy(np.round(x)).float().view(1, 1, -1, 1)
    q = np.arange(-40, 41)
    p = stats.logistic.cdf(q + 0.5, 0, 0.8) - stats.logistic.cdf(
        q - 0.5, 0, 0.8)
    got = length(symbols, Steps(torch.ones(1))).item() / len(x)
    assert got == pytest.approx(stats.entropy(p, base=2), rel=0.01)


def test_images_do_not_mix():
    _, symbols, steps = _case((3, 5, 6, 7))
    alone = [length(symbols[i:i + 1], Steps(*(
        None if x is None else x[i:i + 1] for x in steps)))
             for i in range(3)]
    torch.testing.assert_close(length(symbols, steps), torch.cat(alone))


def test_vectors_share_one_model():
    symbols = torch.tensor([[0., 1., 0., 3., 0., 0., 1., 0.]])
    unit = Steps(torch.ones(1))
    # as the tokens of one channel
    torch.testing.assert_close(
        length(symbols, unit), length(symbols[..., None], unit))
    assert length(symbols, unit).item() > 8


# ---------------------------------------------- steps that vary by 1000 times
def _source(kind):
    """Channels of different size, (2, 16, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 32, 32, generator=generator)
    if kind == 'laplace':
        size = torch.empty_like(x).exponential_(generator=generator)
        x = x.sign() * size * 0.5**0.5
    elif kind == 'relu':
        x = x.relu()
    return x * (torch.arange(16).view(1, -1, 1, 1) / 8 - 1).exp2()


def _wide(kind):
    """Token exponents over 20 octaves: of all sizes, or of which only a few
    are fine."""
    generator = torch.Generator().manual_seed(1)
    if kind == 'uniform':
        return torch.randint(-10, 11, (2, 1, 32, 32), generator=generator)
    share = torch.rand(2, 1, 32, 32, generator=generator)
    return 20 - (share**8 * 40).int()


def _rate(feature, scale, token=None):
    steps = Steps(torch.full((2, ), scale), token)
    quantized, _ = quantize(feature, Allocation(steps))
    return code_length(quantized).sum().item() / feature.numel()


@pytest.mark.parametrize('source', ['gauss', 'laplace', 'relu'])
@pytest.mark.parametrize('steps', ['uniform', 'few fine'])
def test_coarser_steps_never_take_more_bits(source, steps):
    """Most tokens are all 0, and only few fine ones fire."""
    x, token = _source(source), _wide(steps)
    rates = [_rate(x, 2.0**o, token) for o in range(-8, 9)]
    assert all(b <= 1.02 * a for a, b in zip(rates, rates[1:])), rates
    assert rates[-1] < 0.06


#: Bits per element with one step of 1/8, 1/2, 1, 2 and 4, of version 2 of the
#: stream, whose model was a Laplace distribution with a share of zeros.
ONE_STEP = dict(
    gauss=(5.0554, 3.0459, 2.0810, 1.1730, 0.4002),
    laplace=(4.8887, 2.9160, 1.9733, 1.1051, 0.4105),
    relu=(2.8745, 1.7160, 1.1334, 0.6108, 0.2000))


@pytest.mark.parametrize('source', list(ONE_STEP))
def test_hardly_more_bits_than_before(source):
    """Of half a Gaussian, which it fits worst, up to 8 %."""
    x = _source(source)
    for scale, former in zip((0.125, 0.5, 1.0, 2.0, 4.0), ONE_STEP[source]):
        assert _rate(x, scale) < 1.08 * former


# ------------------------------------------------------------ what is broken
@pytest.mark.parametrize('shape', [(3, 5, 6, 7), (3, 30, 5), (3, 40)])
def test_no_plausible_bits_of_what_is_broken(shape):
    """A NaN is unequal to 0, is not above 0, and is no integer: it must not
    look like a symbol, nor reach a table."""
    feature, symbols, steps = _case(shape)
    expected = length(symbols, steps)

    def check(got):
        assert got[1].isnan() and torch.equal(got[::2], expected[::2])

    for where in (slice(3, 4), slice(None)):
        broken = symbols.clone()
        broken[1].view(-1)[where] = math.nan
        check(length(broken, steps))
        check(length(broken, steps, fitted(symbols, steps)))
        check_ranges(fitted(broken, steps), steps)
    # of an estimator that diverged: all symbols NaN, or all of them 0
    for value in (math.nan, math.inf):
        base = steps.base.clone()
        base[1] = value
        diverged = steps._replace(base=base)
        check(length(
            to_symbols(feature, diverged.size(feature)), diverged))
        dead = symbols.clone()
        dead[1] = 0
        check(length(dead, diverged))


@pytest.mark.parametrize('shape', [(0, 5, 6, 7), (0, 30, 5), (0, 40)])
def test_no_image_takes_no_bits(shape):
    none = torch.zeros(shape)
    assert length(none, Steps(torch.ones(0))).shape == (0, )
