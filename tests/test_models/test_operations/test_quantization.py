import pytest
import torch

from mmfeatjnd.coding import decode_image, encode_image
from mmfeatjnd.functional import (
    code_length,
    dequantize,
    gaussian_noise,
    image_keys,
    modelled_noise,
    nrmse,
    rms,
    to_tokens,
)
from mmfeatjnd.models import FeatJNDNeck, Quantization

POLICIES = [
    'featjnd', 'permuted-steps', 'one-step', 'range', 'gradient',
    'water-filling', 'clip-uniform'
]
# enough elements that a rate or an error is nearly continuous
SHAPES = dict(map=(8, 16, 15), tokens=(240, 8), vector=(640, ))


def make_neck(layout='map', mode='envelope', trained=True, levels=1):
    torch.manual_seed(0)
    channels = SHAPES[layout][-1 if layout != 'map' else 0]
    kind = 'Conv' if layout == 'map' else 'Token'
    neck = FeatJNDNeck(
        dict(
            type=f'mmfeatjnd.{kind}Estimator', hidden_channels=8, mode=mode),
        in_channels=[channels] * levels,
        shared=True).eval()
    estimator, = neck.estimators
    with torch.no_grad():  # far from constant
        estimator.expand.weight.mul_(2)
    estimator.initial.fill_(trained)
    return neck


def make_feature(layout, *ids):
    shape = SHAPES[layout]
    feature = gaussian_noise(image_keys(ids, 77), shape)
    strength = (gaussian_noise(image_keys([9]), (640, ))[0] / 2).exp()
    if layout == 'map':
        return (feature * strength[:8, None, None]).relu()
    return feature * strength[:shape[-1]]


def apply(operation, neck, *features, **kwargs):
    with torch.no_grad(), neck.run(operation, **kwargs) as run:
        return neck.apply_levels(features), run


def run(operation, layout='map', ids=(5, 6), levels=1):
    feature = make_feature(layout, *ids)
    outputs, result = apply(
        operation,
        make_neck(layout, levels=levels),
        *[feature] * levels,
        images=ids,
        sensitivity={i: [(feature + 1).square()] for i in range(levels)})
    return feature, outputs, result


def steps_of(run, level=0):
    return run.kept[level][1].steps


def symbols_of(run):
    return run.kept[0][1].symbols


def bits_per_element(run):
    return (run.measured['bits'] / run.measured['elements']).float()


# ------------------------------------------------------------------- budgets
@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_the_measured_noise_is_what_was_asked(name, layout):
    policy = dict(type=name)
    if name in ('featjnd', 'permuted-steps'):
        policy.update(power=1)
    if name == 'clip-uniform':
        # what lies between the best range and all of the features'
        policy.update(bins=3 if layout == 'map' else 6)
    operation = Quantization(policy, noise_budget=0.5)
    feature, outputs, result = run(operation, layout, levels=2)
    target = torch.full((2, ), 0.5)
    # a channel that is dropped is a jump
    precision = 0.05 if name == 'water-filling' else 0.01
    for out in outputs:
        torch.testing.assert_close(
            nrmse(out - feature, feature), target, rtol=precision, atol=0)
    torch.testing.assert_close(
        result.measured['nrmse'].float(), target, rtol=precision, atol=0)
    # an own scale for each image and level
    first, second = (steps_of(result, i) for i in (0, 1))
    assert len(first.base.unique()) == 2
    if name == 'permuted-steps' and layout != 'vector':
        assert not torch.equal(first.token, second.token)


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize(
    'name', ['featjnd', 'permuted-steps', 'one-step', 'range', 'gradient'])
def test_the_modelled_noise_is_what_was_asked(name, layout):
    operation = Quantization(name, noise_budget=0.3, noise='model')
    feature, _, result = run(operation, layout)
    steps = steps_of(result)
    model = modelled_noise(steps, feature).sqrt() / rms(feature)
    torch.testing.assert_close(model, torch.full((2, ), 0.3))


@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_the_bits_are_what_was_asked(name, layout):
    if (name, layout) == ('gradient', 'vector'):
        pytest.skip('the last values of a vector that fire have small steps: '
                    'the rate is not monotone there')
    operation = Quantization(name, bits=0.7)
    feature, _, result = run(operation, layout)
    bits = bits_per_element(result)
    # in so few channels and tokens that fall to 0 together, the rate jumps
    jumps = name in ('range', 'water-filling')
    torch.testing.assert_close(
        bits, torch.full((2, ), 0.7), rtol=0.15 if jumps else 0.03, atol=0)
    (_, quantized), = result.kept
    assert quantized.model is not None  # the coder does not fit it again
    torch.testing.assert_close(
        bits, code_length(quantized) / feature[0].numel())


@pytest.mark.parametrize('kwargs', [dict(), dict(noise='model')])
def test_permuted_spends_the_budget_elsewhere(kwargs):
    """The paper's baseline: the same budget, hence the same modelled noise,
    and other tokens that bear it."""
    one, other, again = (
        Quantization(dict(type=name, power=1), noise_budget=0.3,
                     noise='model', seed=seed)
        for name, seed in (('featjnd', 0), ('permuted-steps', 0),
                           ('permuted-steps', 1)))
    feature, (a, ), result = run(one)
    first = steps_of(result)
    _, (b, ), result = run(other)
    second = steps_of(result)
    torch.testing.assert_close(
        modelled_noise(first, feature), modelled_noise(second, feature))
    torch.testing.assert_close(
        first.token.flatten(1).sort(1)[0],
        second.token.flatten(1).sort(1)[0])
    assert not torch.equal(a, b)
    assert not torch.equal(run(again)[1][0], b)


def test_more_bits_less_noise():
    noise = []
    for bits in (0.2, 0.5, 1.0, 2.0):
        operation = Quantization('featjnd', bits=bits)
        noise.append(float(run(operation)[2].measured['nrmse'].mean()))
    assert noise == sorted(noise, reverse=True)


@pytest.mark.parametrize('how', [dict(noise_budget=0.01), dict(bits=7.0)])
def test_clipping_out_of_reach_ends_at_its_least_error(how):
    policy = dict(type='clip-uniform', bins=3)
    _, (best, ), _ = run(Quantization(policy, scale=1.0))
    _, (out, ), _ = run(Quantization(policy, **how))
    torch.testing.assert_close(out, best, rtol=1e-3, atol=0)


@pytest.mark.parametrize('how', [dict(noise_budget=0.4), dict(bits=0.8)])
def test_whether_the_target_was_met_is_measured(how):
    for policy, met in (('one-step', [1, 1]),
                        (dict(type='clip-uniform', bins=65), [0, 0])):
        _, _, result = run(Quantization(policy, **how))
        assert result.measured['target_met'].tolist() == met
    assert 'target_met' not in run(Quantization('one-step'))[2].measured


def test_saturated_symbols_are_measured(messages):
    feature = torch.ones(2, 4)
    feature[0, 3] = 1e6  # 2 of 8 symbols cannot be told apart from others
    operation = Quantization('one-step', scale=1e-5)
    _, result = apply(operation, make_vector_neck(), feature)
    # steps of 5 and 1e-5: symbols 200000 and 100000
    assert result.measured['saturated'].tolist() == [0.25, 1]
    operation.summary(result.measured)
    assert '62.50% of the symbols are saturated' in messages[-1]


def test_half_precision_stays_finite():
    feature = torch.full((1, 8, 2, 2), 65504.).half()
    (out, ), result = apply(
        Quantization('one-step', scale=0.66), make_neck(), feature)
    symbols, steps = symbols_of(result), steps_of(result)
    assert (symbols * steps.size(symbols) > 80000).all()  # 2 x 0.66 x 65504
    assert out.dtype == torch.half and (out == 65504).all()
    assert result.measured['nrmse'] == 0  # after the cast
    assert not result.faults.any()


# ------------------------------------------------------------------- by hand
def make_vector_neck():
    return FeatJNDNeck(
        dict(type='mmfeatjnd.TokenEstimator', hidden_channels=2),
        in_channels=4).eval()


def test_uniform_by_hand():
    feature = torch.tensor([[3., -4., 1., 0.]])  # RMS: sqrt(26) / 2
    step = 26**0.5 / 2
    operation = Quantization('one-step')
    assert operation.scale == 1
    neck = make_vector_neck()
    (out, ), result = apply(operation, neck, feature)
    torch.testing.assert_close(out, step * torch.tensor([[1., -2., 0., 0.]]))
    images, quantized = result.kept[0]
    assert quantized.symbols.tolist() == [[1, -2, 0, 0]]
    assert quantized.dtype == torch.float32 and images.tolist() == [0]
    torch.testing.assert_close(quantized.steps.base, torch.tensor([step]))
    # rounding towards 0, and a wider zero bin
    for kwargs, expected in ((dict(rounding=0.), [1, -1, 0, 0]),
                             (dict(deadzone=1.3), [0, -2, 0, 0])):
        _, result = apply(Quantization('one-step', **kwargs), neck, feature)
        assert symbols_of(result).tolist() == [expected]


@pytest.mark.parametrize('name', POLICIES)
def test_the_values_are_those_of_the_symbols(name):
    operation = Quantization(name, scale=0.7)
    feature, outputs, result = run(operation)
    for out, (_, quantized) in zip(outputs, result.kept):
        assert torch.equal(quantized.symbols, quantized.symbols.round())
        assert torch.equal(dequantize(quantized), out)
        assert not torch.equal(out, feature)


# --------------------------------------------------------------- independence
@pytest.mark.parametrize('how', [
    dict(scale=0.5), dict(noise_budget=0.4), dict(bits=0.8),
    dict(noise_budget=0.4, noise='model')])
@pytest.mark.parametrize('name', POLICIES)
def test_an_image_is_quantized_alike_in_any_batch(name, how):
    operation = Quantization(name, seed=3, **how)
    torch.manual_seed(1)
    _, (batch, ), result = run(operation, ids='abc')
    torch.manual_seed(2)
    assert torch.equal(run(operation, ids='abc')[1][0], batch)
    measured = result.measured
    for i, image in enumerate('abc'):
        _, (alone, ), result = run(operation, ids=image)
        torch.testing.assert_close(alone[0], batch[i])
        for key, value in result.measured.items():
            torch.testing.assert_close(value[0], measured[key][i])
    torch.testing.assert_close(
        run(operation, ids='ca')[1][0], batch[[2, 0]])


# -------------------------------------------------------------- real bitstream
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('layout', SHAPES)
@pytest.mark.parametrize('name', POLICIES)
def test_coded_bytes_are_those_of_the_stream(name, layout, dtype):
    operation = Quantization(name, bits=0.8, coded=True)
    feature = make_feature(layout, 5, 6).to(dtype)
    outputs, result = apply(
        operation,
        make_neck(layout, levels=2),
        feature,
        feature,
        images=[5, 6],
        sensitivity={i: [feature.float()**2] for i in (0, 1)})
    assert all(out.dtype == dtype for out in outputs)
    measured = result.measured
    elements = 2 * feature[0].numel()
    assert measured['elements'].tolist() == [elements] * 2
    for i in range(2):
        image = [quantized.of_image(i) for _, quantized in result.kept]
        data = encode_image(image)
        assert measured['coded_bytes'][i] == len(data)
        # header, parameters and steps count
        assert len(data) * 8 > measured['bits'][i]
        # and a decoder that has nothing but the bytes gets what the host got
        for item, out in zip(decode_image(data), outputs):
            assert torch.equal(dequantize(item)[0], out[i])


def test_without_bitstreams():
    _, _, result = run(Quantization('one-step'))
    assert {'nrmse', 'bits', 'elements'} <= set(result.measured)
    assert 'coded_bytes' not in result.measured


def test_the_streams_of_views_lie_one_after_the_other():
    """Two windows of each image, and two levels in each window's stream."""
    operation = Quantization('one-step', coded=True)
    views = make_feature('map', 1, 2, 3, 4)
    outputs, result = apply(
        operation, make_neck(levels=2), views, views / 2, images=[1, 2])
    data = result.operation.streams(result)
    assert result.measured['coded_bytes'].tolist() == [len(d) for d in data]
    for i, stream in enumerate(data):
        size = len(encode_image(_levels(result, 2 * i)))
        for row, part in ((2 * i, stream[:size]), (2 * i + 1, stream[size:])):
            first, second = decode_image(part)
            assert torch.equal(dequantize(first)[0], outputs[0][row])
            assert torch.equal(dequantize(second)[0], outputs[1][row])


def _levels(run, row):
    return [quantized.of_image(row) for _, quantized in run.kept]


def test_the_stream_of_an_image_without_regions_is_empty():
    neck = make_neck()
    with torch.no_grad(), neck.run(
            Quantization('one-step', coded=True), [4, 5, 6]) as result:
        neck.row_images = torch.tensor([1, 1])
        neck.apply_levels([make_feature('map', 1, 2)])
    size = result.measured['coded_bytes']
    assert size[1] > 0 and size[0] == size[2] == 0


def test_no_regions_at_all():
    _, result = apply(
        Quantization('one-step', coded=True),
        make_neck(),
        torch.zeros(0, *SHAPES['map']),
        images=[4, 5])
    assert result.measured == {}


# ------------------------------------------------------------------ odd cases
@pytest.mark.parametrize('how', [
    dict(), dict(noise_budget=0.4), dict(bits=0.8),
    dict(noise_budget=0.4, noise='model')])
@pytest.mark.parametrize('name', POLICIES)
def test_an_image_without_energy(name, how):
    operation = Quantization(name, **how)
    feature = make_feature('map', 5, 6)
    feature[1] = 0
    (out, ), result = apply(
        operation, make_neck(), feature, sensitivity={0: [feature.square()]})
    assert out.isfinite().all() and not out[1].any()
    measured = result.measured
    assert all(v.isfinite().all() for v in measured.values())
    assert measured['nrmse'][1] == 0 and measured['nrmse'][0] > 0
    assert measured['bits'][1] == 0 and measured['bits'][0] > 0


def test_the_operation_keeps_nothing_of_a_batch():
    operation = Quantization('one-step')
    before = dict(vars(operation))
    _, _, result = run(operation)
    assert len(result.kept) == 1
    assert vars(operation) == before
    assert len(run(operation)[2].kept) == 1


@pytest.mark.parametrize('kwargs, message', [
    (dict(policy='fetjnd'), "'featjnd'.*but got 'fetjnd'"),
    (dict(policy=dict(bins=4)), "with one of them as type, but got {'bins"),
    (dict(scale=1., bits=1.), 'one of scale, noise_budget, bits and.*bits'),
    (dict(scale=1., noise_budget=1.), 'one of scale, noise_budget'),
    (dict(scale=0), 'positive and finite'),
    (dict(bits=-1), 'positive and finite'),
    (dict(noise_budget=float('inf')), 'positive and finite'),
    (dict(noise='true'), "noise must be one of.*but got 'true'"),
    (dict(rounding=0.6), 'rounding must lie in'),
    (dict(deadzone=0.4), 'deadzone'),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Quantization(**kwargs)


def test_check():
    operation = Quantization('featjnd')
    operation.check(make_neck())
    with pytest.raises(ValueError, match='needs a trained estimator'):
        operation.check(make_neck(trained=False))
    with pytest.raises(ValueError, match="mode='signed'.*configs/featjnd"):
        operation.check(make_neck(mode='signed'))
    for name in ('one-step', 'range', 'gradient'):
        Quantization(name).check(make_neck(mode='signed', trained=False))


def test_row():
    operation = Quantization(
        'permuted-steps', noise_budget=0.4, seed=2, coded=True)
    summary = operation.summary(run(operation)[2].measured)
    row = operation.row(summary)
    assert row['policy'] == 'permuted-steps' and row['seed'] == 2
    assert row['protocol'] == 'equal-noise' and row['noise_budget'] == 0.4
    assert row['scale'] is None and row['bits'] is None
    assert row['nrmse_measured'] == summary['nrmse']
    for name in ('coded_bytes', 'bits_per_element', 'coded_bits_per_element'):
        assert row[name] == summary[name] > 0
    assert Quantization('one-step').row(summary)['protocol'] == 'rate'


def test_the_rate_of_a_data_set_is_that_of_all_its_elements():
    """Not the mean of the images' rates, where small images would count as
    much as large ones."""
    operation = Quantization('one-step', coded=True)
    _, _, result = run(operation)
    columns = {k: torch.zeros(3).double() for k in result.measured}
    columns.update(
        nrmse=torch.tensor([0.2, 0.4, float('nan')]).double(),
        bits=torch.tensor([100., 20., 0.]).double(),
        elements=torch.tensor([50., 10., 0.]).double(),
        coded_bytes=torch.tensor([27., 3., 0.]).double())
    summary = operation.summary(columns)
    assert summary['nrmse'] == pytest.approx(0.3)
    assert summary['bits_per_element'] == 2
    assert summary['coded_bytes'] == 10
    assert summary['coded_bits_per_element'] == 4
    columns['elements'][2] = 60  # an image of which every symbol is free
    assert operation.summary(columns)['bits_per_element'] == 1


def test_tokens_differ_in_their_steps():
    """That is the point: a token's step follows its JND."""
    feature, _, result = run(Quantization(dict(type='featjnd', power=1)))
    steps = steps_of(result)
    size = to_tokens(steps.size(feature).expand(feature.shape))
    assert (size.amax(1) > 1.4 * size.amin(1)).all()
