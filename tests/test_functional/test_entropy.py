import math
import zlib

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
    empirical_entropy,
    fit_entropy_model,
    make_steps,
    quantize,
)
from mmfeatjnd.functional.entropy import (
    DIGIT,
    DIGITS,
    NONZERO,
    NUM_PI,
    NUM_SIGN,
    POSITIVE,
    RATIO_RANGE,
    as_samples,
    statistics,
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


# ------------------------------------------------------------------- tables
def test_tables_never_change():
    """Encoder and decoder must have the same: a change needs a new version
    of the stream."""
    sums = [zlib.crc32((x.double() * 65536).int().numpy().tobytes())
            for x in (NONZERO, DIGIT, POSITIVE)]
    assert sums == [2987385412, 3959459195, 843854455]


def test_tables_are_16_bit_probabilities():
    for table in (NONZERO, DIGIT, POSITIVE):
        scaled = table.double() * 65536
        assert torch.equal(scaled, scaled.round())
        assert scaled.min() >= 1 and scaled.max() <= 65535


@pytest.mark.parametrize('half_octaves', [-32, -9, -4, 0, 3, 8, 12])
def test_digits_of_the_geometric_are_independent(half_octaves):
    """P(digit d is 1) = r / (1 + r), r = rho^(2^d), and the digits'
    probabilities multiply to the geometric."""
    ratio = 2**(half_octaves / 2)
    rho = math.exp(-ratio)
    n = np.arange(1 << DIGITS)
    geometric = (1 - rho) * rho**n / (1 - rho**(1 << DIGITS))
    for d in range(DIGITS):
        one = geometric[n >> d & 1 == 1].sum()
        table = float(DIGIT[half_octaves - RATIO_RANGE[0], d])
        assert table == pytest.approx(np.clip(one, 2**-16, 1 - 2**-16),
                                      abs=2**-17)
    r = rho**(2.0**np.arange(DIGITS))
    bits = n[:, None] >> np.arange(DIGITS) & 1
    product = np.where(bits, r / (1 + r), 1 / (1 + r)).prod(1)
    np.testing.assert_allclose(product, geometric, rtol=1e-9, atol=1e-300)


# ---------------------------------------------------------------------- fit
@pytest.mark.parametrize('signed', [True, False])
def test_fit_finds_the_parameters_of_a_geometric(signed):
    generator = np.random.default_rng(0)
    n, pi, b, plus = 200000, 0.3, 2.0, 0.75 if signed else 1.0
    fires = generator.random(n) < pi
    # scipy's geometric starts at 1
    size = stats.geom.rvs(1 - math.exp(-1 / b), size=n, random_state=1)
    sign = np.where(generator.random(n) < plus, 1, -1)
    symbols = torch.from_numpy(fires * size * sign).float().view(1, n, 1)
    model = fitted(symbols, Steps(torch.ones(1)))
    angle = math.asin(math.sqrt(pi)) / (math.pi / 2) * (NUM_PI - 1)
    assert model.nonzero.item() == round(angle + 0.5)
    assert model.scale.item() == 2  # 2 log2(b)
    assert model.positive.item() == round(plus * (NUM_SIGN - 1))


def test_fit_sees_through_steps_that_vary():
    """Symbols of one exponential distribution, quantized by different steps:
    the scale is that of the distribution, in units of the base."""
    torch.manual_seed(0)
    feature = torch.empty(1, 1, 300, 300).exponential_()
    log_step = torch.randn(1, 1, 300, 300) * 0.7
    steps = make_steps(log_step, 'element')
    symbols = to_symbols(feature, steps.size(feature), rounding=0.0)
    model = fitted(symbols, steps)
    # P(|f| > x) = exp(-x): b = 1 / base, here base is 1
    assert abs(model.scale.item()) <= 1


def test_dead_channels_have_index_0():
    symbols = torch.zeros(1, 3, 4, 4)
    symbols[0, 1, 0, 0] = 2
    model = fitted(symbols, Steps(torch.ones(1)))
    assert (model.nonzero > 0).tolist() == [[False, True, False]]
    assert model.scale[0, 0] == model.scale[0, 2] == 0
    assert length(torch.zeros(2, 3, 4, 4), Steps(torch.ones(2))).tolist(
    ) == [0, 0]


def test_what_has_a_model_keeps_it():
    """So the code length and the coder take the same."""
    _, symbols, steps = _case((2, 5, 6, 7))
    quantized = fit_entropy_model(QuantizedLevel(symbols, steps))
    assert fit_entropy_model(quantized) is quantized
    assert torch.equal(quantized.symbols, symbols)
    other = quantized.model._replace(scale=quantized.model.scale + 3)
    worse = code_length(quantized._replace(model=other))
    assert (worse > code_length(quantized)).all()


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
        assert all(x.shape == (2, models) for x in model[:3])
        assert model.reference.shape == model.form.shape == (2, 1)
        assert model.nonzero.min() >= 0
        assert model.nonzero.max() < NUM_PI
        assert 0 <= model.positive.min()
        assert model.positive.max() < NUM_SIGN


# -------------------------------------------------------------- code length
def _plain_length(symbols, steps, model):
    """The same in plain numpy and doubles, from the formulas of the
    module, without tables."""
    samples = as_samples(symbols).double().numpy()
    batch, tokens, models = samples.shape
    exponent = steps.exponent
    exponent = torch.zeros(1) if isinstance(exponent, int) else exponent
    exponent = as_samples(exponent.expand(symbols.shape) if exponent.dim() > 1
                          else torch.zeros_like(symbols)).numpy()
    bits = np.zeros(batch)
    for i in range(batch):
        for c in range(models):
            index = int(model.nonzero[i, c])
            if not index:
                continue
            pi = math.sin((index - 0.5) * math.pi / 64)**2
            reference = int(model.reference[i])
            if steps.channel is not None and symbols.dim() > 2:
                reference += int(steps.channel[i].flatten()[c])
            scale = int(model.scale[i, c])
            plus = int(model.positive[i, c]) / (NUM_SIGN - 1)
            for t in range(tokens):
                q = samples[i, t, c]
                ratio = 2**((exponent[i, t, c] - scale) / 2)
                at = 2**((reference - scale) / 2)
                fires = pi * math.exp((at - ratio) / 2)
                if not model.form[i]:
                    odds = pi / (1 - pi) * math.expm1(at / 2)
                    fires = odds / (odds + math.expm1(ratio / 2))
                fires = min(max(fires, 2**-16), 1 - 2**-16)
                if q == 0:
                    bits[i] -= math.log2(1 - fires)
                    continue
                share = plus if q > 0 else 1 - plus
                bits[i] -= math.log2(fires) + math.log2(
                    min(max(share, 2**-16), 1 - 2**-16))
                # scipy's geometric starts at 1, as |q| does
                bits[i] -= stats.geom.logpmf(
                    abs(q), -math.expm1(-ratio)) / math.log(2)
    return bits


@pytest.mark.parametrize('shape', LAYOUTS)
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_code_length_against_plain_numpy(shape, granularity):
    _, symbols, steps = _case(shape, granularity)
    model = fitted(symbols, steps)
    np.testing.assert_allclose(
        length(symbols, steps).numpy(), _plain_length(symbols, steps, model),
        rtol=2e-3)


def test_code_length_by_hand():
    # pi = sin^2(16.5 pi / 64), ratio 1: three zeros, 1, -3
    symbols = torch.tensor([[[0.], [1.], [0.], [-3.], [0.]]])
    model = EntropyModel(*(torch.tensor([[x]]) for x in (17, 0, 8, 0, 0)))
    pi = math.sin(16.5 * math.pi / 64)**2
    expected = -3 * math.log2(1 - pi) - 2 * math.log2(pi) + 2  # two signs
    expected -= 2 * math.log2(1 - math.exp(-1)) - 2 * math.log2(math.e)
    got = length(symbols, Steps(torch.ones(1)), model)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_fitted_parameters_are_nearly_the_best():
    _, symbols, steps = _case((1, 1, 40, 40))
    model = fitted(symbols, steps)
    least = length(symbols, steps).item()
    best = min(
        length(
            symbols, steps,
            EntropyModel(model.nonzero + i, model.scale + j,
                  model.positive + k, model.reference,
                  model.form)).item() for i in (-2, -1, 0, 1, 2)
        for j in (-2, -1, 0, 1, 2) for k in (-1, 0, 1))
    assert least <= 1.01 * best


def test_code_length_is_near_the_entropy_of_its_source():
    generator = np.random.default_rng(2)
    n, pi, rho = 100000, 0.4, math.exp(-1 / 1.5)
    fires = generator.random(n) < pi
    size = stats.geom.rvs(1 - rho, size=n, random_state=3)
    symbols = torch.from_numpy(
        fires * size * generator.choice([-1, 1], n)).float().view(1, 1, -1, 1)
    entropy = stats.bernoulli(pi).entropy() + pi * (
        math.log(2) + stats.geom(1 - rho).entropy())
    got = length(symbols, Steps(torch.ones(1))).item() / n
    assert got == pytest.approx(entropy / math.log(2), rel=0.01)


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
    """Most tokens are all 0, and only few fine ones fire: with the reference
    at the geometric mean of all steps the rate rose again, to 7 bits or
    1."""
    x, token = _source(source), _wide(steps)
    rates = [_rate(x, 2.0**o, token) for o in range(-8, 9)]
    assert all(b <= 1.02 * a for a, b in zip(rates, rates[1:])), rates
    assert rates[-1] < 0.06


#: Bits per element with one step of 1/8, 1/2, 1, 2 and 4, of version 1 of the
#: stream, whose model had only the second form.
ONE_STEP = dict(
    gauss=(5.0554, 3.0459, 2.0810, 1.1730, 0.4002),
    laplace=(4.8887, 2.9160, 1.9733, 1.1051, 0.4105),
    relu=(2.8745, 1.7160, 1.1334, 0.6108, 0.2000))
#: And with varying steps, at scales of 2^-8, 2^-4 and 1.
WIDE = dict(
    gauss=((9.9671, 5.9958, 2.5281), (2.4085, 1.1226, 0.5742)),
    laplace=((9.7913, 5.8293, 2.4214), (2.3681, 1.0965, 0.5567)),
    relu=((5.4157, 3.3180, 1.4081), (1.2968, 0.6140, 0.3176)))


@pytest.mark.parametrize('source', list(ONE_STEP))
def test_no_more_bits_than_before(source):
    x = _source(source)
    for scale, former in zip((0.125, 0.5, 1.0, 2.0, 4.0), ONE_STEP[source]):
        assert _rate(x, scale) == pytest.approx(former, abs=1e-4)
    for steps, formers in zip(('uniform', 'few fine'), WIDE[source]):
        token = _wide(steps)
        for scale, former in zip((2**-8, 2**-4, 1.0), formers):
            assert _rate(x, scale, token) < 1.001 * former


def test_zeros_that_no_step_makes_fire_take_the_other_form():
    token = _wide('uniform')
    forms = []
    for source in ('gauss', 'relu'):
        quantized, _ = quantize(
            _source(source), Allocation(Steps(torch.full((2, ), 0.1), token)))
        forms.append(fit_entropy_model(quantized).model.form.tolist())
    assert forms == [[[0], [0]], [[1], [1]]]


def test_the_reference_is_the_mean_exponent_of_what_fires():
    symbols = torch.tensor([[[0., 0.], [1., 0.], [-7., 2.], [0., 0.]]])
    token = torch.tensor([[[30], [-8], [-10], [25]]])
    model = fitted(symbols, Steps(torch.ones(1), token))
    assert model.reference.tolist() == [[-9]]  # of -8, -10, -10
    assert fitted(symbols, Steps(torch.ones(1))).reference.tolist() == [[0]]


def test_fit_finds_the_scale_of_widely_varying_steps():
    """From what exceeds the first symbol at steps from 1/64 to 64, where the
    mean excess over the mean step says little."""
    x = _source('laplace')[:1, 8:9].abs()  # b = sqrt(1/2)
    token = torch.arange(32 * 32).view(1, 1, 32, 32) % 25 - 12
    steps = Steps(torch.ones(1), token)
    model = fitted(to_symbols(x, steps.size(x)), steps)
    assert model.scale.item() == -1
    # and nothing but the Laplace distribution: both forms are the same
    half = 2**(model.reference.item() / 2) / 2 / 2**-0.5
    pi = math.sin((model.nonzero.item() - 0.5) * math.pi / 64)**2
    assert pi == pytest.approx(math.exp(-half), abs=0.08)


def test_statistics_are_the_same_by_classes_and_by_tokens():
    generator = torch.Generator().manual_seed(3)
    magnitude = torch.randint(0, 9, (2, 100, 3), generator=generator).float()
    exponent = torch.randint(-9, 9, (2, 100, 1), generator=generator)
    direct = statistics(magnitude, exponent)
    assert direct.fires.shape == (2, 100, 3)
    twice = statistics(torch.cat([magnitude] * 2, 1),
                       torch.cat([exponent] * 2, 1))
    assert twice.fires.shape == (2, 129, 3)
    for x in ('total', 'fires', 'excess'):
        for power in (1, -1):
            a, b = (getattr(s, x) * s.step**power for s in (direct, twice))
            torch.testing.assert_close(2 * a.sum(1), b.sum(1))
    one = statistics(magnitude, exponent[:, :1])
    assert one.total.tolist() == [[[100]], [[100]]]
    assert torch.equal(one.excess, direct.excess.sum(1, keepdim=True))


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
        for x, low, high in zip(
                fitted(broken, steps), (0, None, 0, -64, 0),
                (NUM_PI - 1, None, NUM_SIGN - 1, 64, 1)):
            assert low is None or (x >= low).all() and (x <= high).all()
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
    whole = empirical_entropy(symbols)
    got = empirical_entropy(broken)
    assert got[1].isnan()
    torch.testing.assert_close(got[::2], whole[::2])


@pytest.mark.parametrize('shape', [(0, 5, 6, 7), (0, 30, 5), (0, 40)])
def test_no_image_takes_no_bits(shape):
    none = torch.zeros(shape)
    assert length(none, Steps(torch.ones(0))).shape == (0, )
    assert empirical_entropy(none).shape == (0, )


# --------------------------------------------------------- empirical entropy
def test_empirical_entropy_by_hand():
    symbols = torch.tensor([[0., 0., 0., 0.], [0., 1., 0., 1.],
                          [-1., 5., 7., -32767.], [2., 2., 2., 9.]])
    uneven = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    torch.testing.assert_close(
        empirical_entropy(symbols), torch.tensor([0., 1., 2., uneven]))
