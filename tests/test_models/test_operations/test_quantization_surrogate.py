import math

import pytest
import torch

from mmfeatjnd.functional import (
    Level,
    code_length,
    gaussian_noise,
    image_keys,
    quantize,
)
from mmfeatjnd.models import Quantization, QuantizationSurrogate

SHAPES = dict(map=(16, 12, 12), tokens=(100, 16), vector=(640, ))
KEYS = image_keys(range(3))
TRAINING = dict(type='mmfeatjnd.QuantizationSurrogate', magnitude='rate')
OBJECTIVE = dict(
    magnitude_weight=1.0, tolerance=0.02, multiplier=10.0, adapt=0.05)


def make(layout, seed=0):
    """Features with zeros, and an envelope."""
    shape = SHAPES[layout]
    view = [1] * len(shape)
    channel = 0 if layout != 'tokens' else 1
    view[channel] = shape[channel]
    scale = torch.linspace(0.5, 2, shape[channel]).view(view)
    feature = gaussian_noise(KEYS, shape, seed) * scale
    envelope = (gaussian_noise(KEYS, shape, seed + 9) / 2).exp() * scale / 2
    return feature.relu(), envelope


@pytest.mark.parametrize('jnd_rounding', [True, False])
@pytest.mark.parametrize('granularity', ['token', 'channel-token', 'element'])
@pytest.mark.parametrize('layout', SHAPES)
def test_it_is_the_policy_at_scale_1(layout, granularity, jnd_rounding):
    kwargs = dict(granularity=granularity, jnd_rounding=jnd_rounding)
    feature, envelope = make(layout)
    operation = Quantization(dict(type='featjnd', power=1, **kwargs))
    allocation = operation.policy(Level(feature, KEYS, envelope=envelope))(
        torch.ones(3))
    quantized, expected = quantize(feature, allocation)
    # without a gradient: with one, the steps are not put on the grid
    value, bits = QuantizationSurrogate(**kwargs).quantize(
        feature, envelope, KEYS)
    torch.testing.assert_close(value, expected)
    if layout != 'vector':
        # the real model has tables of its parameters
        torch.testing.assert_close(
            bits, code_length(quantized), rtol=0.1, atol=0)


@pytest.mark.parametrize('jnd_rounding', [True, False])
@pytest.mark.parametrize('mode', ['straight-through', 'noise'])
@pytest.mark.parametrize('size', [0.5, 1., 2.])
def test_the_gradient_is_that_of_the_real_quantizer(mode, jnd_rounding, size):
    """Against the difference quotient, which sees the jumps."""
    feature, envelope = make('map')
    surrogate = QuantizationSurrogate(mode, jnd_rounding=jnd_rounding)

    def measure(t):
        value, bits = surrogate.quantize(feature, envelope * t, KEYS)
        return bits.sum() / feature.numel(), (value - feature).square().mean()

    t = torch.tensor(size, requires_grad=True)
    h = 0.1 * size
    above, below = measure(size + h), measure(size - h)
    for value, a, b, rtol in zip(measure(t), above, below, (0.15, 0.3)):
        grad, = torch.autograd.grad(value, t, retain_graph=True)
        difference = (a - b) / (2 * h)
        torch.testing.assert_close(grad, difference, rtol=rtol, atol=0)
    # larger steps: fewer bits, more error
    assert above[0] < below[0] and above[1] > below[1]


@pytest.mark.parametrize('weight', [0.01, 100.])
def test_more_weight_on_the_rate_gives_larger_steps(weight):
    feature, envelope = make('map')
    surrogate = QuantizationSurrogate()
    log = torch.zeros((), requires_grad=True)
    value, bits = surrogate.quantize(feature, envelope * log.exp(), KEYS)
    error = (value - feature).square().mean()
    (error + weight * bits.sum() / feature.numel()).backward()
    assert (log.grad < 0) == (weight > 1)  # descent: larger, or smaller


def test_noise_mode():
    feature, envelope = make('map')
    noisy = QuantizationSurrogate('noise')
    value, bits = noisy.quantize(feature, envelope, KEYS, 1)
    same, other = (
        noisy.quantize(feature, envelope, KEYS, stream)[0]
        for stream in (1, 2))
    assert torch.equal(same, value) and not torch.equal(other, value)
    # uniform within half of a step; the bits are those of real levels
    other, same = QuantizationSurrogate().quantize(feature, envelope, KEYS)
    assert torch.equal(bits, same)
    assert not torch.equal(other, value)
    error = (value - feature).flatten(2)
    assert (error != 0).all() and error.mean().abs() < 0.02
    power = error.square().mean()
    step = 2 * envelope.log().mean().exp()
    assert 0.5 < power / (step**2 / 12) < 5


@pytest.mark.parametrize('mode', ['straight-through', 'noise'])
@pytest.mark.parametrize('layout', SHAPES)
def test_dead_channels_and_images(mode, layout):
    feature, envelope = make(layout)
    channel = (slice(None), 3) if layout != 'tokens' else (
        slice(None), slice(None), 3)
    feature[channel] = 0
    envelope[channel] = 0  # as an estimator does where nothing ever fired
    feature[1] = 0
    envelope.requires_grad_()
    value, bits = QuantizationSurrogate(mode).quantize(feature, envelope, KEYS)
    (value.square().mean() + bits.mean()).backward()
    for x in (value, bits, envelope.grad):
        assert x.isfinite().all()
    if mode == 'straight-through':
        assert not value[channel].any() and not value[1].any()


def test_half_precision_features():
    feature, envelope = make('map')
    quantize = QuantizationSurrogate().quantize
    value, bits = quantize(feature.bfloat16(), envelope, KEYS)
    assert value.dtype == bits.dtype == torch.float32
    exact, _ = quantize(feature.bfloat16().float(), envelope, KEYS)
    assert torch.equal(value, exact)


@pytest.mark.parametrize('mode', ['straight-through', 'noise'])
@pytest.mark.parametrize('layout', SHAPES)
def test_a_broken_image_breaks_no_other(mode, layout):
    """An envelope that diverged, or a feature, has neither values nor
    bits."""
    surrogate = QuantizationSurrogate(mode)
    whole = make(layout)
    values, bits = surrogate.quantize(*whole, KEYS)
    for which in (0, 1):
        case = [x.clone() for x in whole]
        case[which][1].view(-1)[5] = math.nan
        got, got_bits = surrogate.quantize(*case, KEYS)
        assert got[1].isnan().any() and got_bits[1].isnan()
        assert torch.equal(got[::2], values[::2])
        assert torch.equal(got_bits[::2], bits[::2])


def test_double_precision_features():
    feature, envelope = make('map')
    quantize = QuantizationSurrogate().quantize
    value, bits = quantize(feature.double(), envelope.double(), KEYS)
    assert value.dtype == bits.dtype == torch.float32
    expected = quantize(feature, envelope, KEYS)
    assert torch.equal(value, expected[0]) and torch.equal(bits, expected[1])


@pytest.mark.parametrize('kwargs, message', [
    (dict(mode='ste'), "mode must be one of.*but got 'ste'"),
    (dict(granularity='pixel'), "granularity must be one.*'pixel'"),
])
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        QuantizationSurrogate(**kwargs)


# ------------------------------------------------------------------- training
def token_host(configs):
    """A tiny ViT, split between its blocks."""
    cfg = configs[1](
        'classifier',
        split='backbone.layers.0',
        in_channels=16,
        estimator=dict(type='mmfeatjnd.TokenEstimator', mode='envelope'))
    cfg['backbone'] = dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16),
        img_size=32,
        patch_size=8,
        out_type='cls_token')
    cfg['neck']['neck'] = None
    cfg['head']['in_channels'] = 16
    return cfg


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('mode', ['straight-through', 'noise'])
@pytest.mark.parametrize('kind',
                         ['classifier', 'segmentor', 'detector', 'tokens'])
def test_the_bits_fall_in_training(build, batch, configs, kind, mode, amp):
    if amp and kind == 'detector':
        pytest.skip("MMCV's RoIAlign has no bfloat16 on a CPU")
    if kind == 'tokens':
        cfg = token_host(configs)
    else:
        neck = dict(estimator=dict(mode='envelope'))
        if kind == 'segmentor':  # the last level has one token
            neck.update(split='backbone.layer1', in_channels=8)
        cfg = configs[1](kind, **neck)
    if kind == 'detector':  # nats of what random heads say know no limit
        cfg['discrepancy'] = dict(type='mmfeatjnd.PseudoGroundTruth')
    cfg['training'] = dict(TRAINING, mode=mode)
    cfg['objective'].update(OBJECTIVE)
    model = build(cfg).train()
    inputs, samples = batch('classifier' if kind == 'tokens' else kind)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    bits = []
    for _ in range(20):  # for a few, they may rise
        with torch.autocast('cpu', torch.bfloat16, enabled=amp):
            losses = model.loss(inputs, samples)
            total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        assert all(p.grad.isfinite().all() for p in parameters)
        optimizer.step()
        bits.append(-float(losses['jnd_magnitude']))
    # with random weights the task tolerates nearly everything
    assert bits[-1] < 0.75 * bits[0]


def test_a_signed_estimator_is_refused(build):
    message = "of mode 'envelope', but .*mode='signed'"
    with pytest.raises(ValueError, match=message):
        build('classifier', training=TRAINING)
