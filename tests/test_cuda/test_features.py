"""Operations, estimators, quantizer and stream on features."""
import gc

import pytest
import torch

from mmfeatjnd import functional as F
from mmfeatjnd.coding import decode_image, encode_image
from mmfeatjnd.functional.fused import compiled, symbols_and_values
from mmfeatjnd.functional.symbols import from_symbols, to_symbols
from mmfeatjnd.models import (
    DrawnNRMSE,
    FeatJNDNeck,
    JNDMapRecorder,
    LearnedNRMSE,
    Perturbation,
    Quantization,
    QuantizationSurrogate,
    build_distortion,
    distortion_names,
)
from mmfeatjnd.models.codec_plan import CodecPlan, rounded_part
from mmfeatjnd.models.operations.token_maps import TokenMap
from mmfeatjnd.registry import DISTORTIONS, STEP_POLICIES

STEP_POLICIES.import_from_location()
TOKEN_MAPS = [
    name for name in distortion_names()
    if issubclass(DISTORTIONS.get(name), TokenMap)]
OPERATIONS = [
    *(Perturbation(name, 0.7) for name in distortion_names()
      if build_distortion(name).metric is None),
    *(Perturbation(name, 0.7, 'channel')
      for name in ['gaussian', 'gradient-sensitivity', *TOKEN_MAPS]),
    Perturbation('featjnd', 0.4, 'channel', valid=True),
    Perturbation('gaussian', 0.4, valid=True),
    *(Quantization(name, scale=0.5)
      for name in sorted(STEP_POLICIES.module_dict)
      if name not in ('token-map', 'plan')),
    *(Quantization(dict(type='token-map', map=name), scale=0.5)
      for name in ['white', 'static', 'other-image', 'level-gain',
                   'feature-energy', 'fisher']),
    Quantization('one-step', bits=1.0),
    Quantization('range', noise_budget=0.2),
    Quantization('featjnd', noise_budget=0.2, noise='model'),
]


def plan_of(channels, block, grouping):
    """A part of a plan, of random correlations."""
    generator = torch.Generator().manual_seed(channels)
    group = F.frequency_groups(block, grouping)
    groups = int(group.max()) + 1
    basis = torch.randn(groups, channels, channels, generator=generator)
    return rounded_part(F.make_transform(
        block, torch.zeros(len(group), channels),
        basis / channels**0.5 + torch.eye(channels), group,
        torch.ones(len(group), channels)), grouping)


def by_plan(scale=0.25, **kwargs):
    """An operation by the plan of a host that is not there."""
    parts = {0: (plan_of(8, 4, 'frequency'), ),
             1: (plan_of(16, 2, 'radius'), )}
    operation = Quantization(
        dict(type='plan', plan=CodecPlan(parts, 'task', 'backbone', (0, 1),
                                         '', 0, 0), **kwargs), scale=scale)
    operation.policy.check = lambda neck: None
    return operation


OPERATIONS += [by_plan(), by_plan(block_power=0.5)]
TRAININGS = [
    DrawnNRMSE(), LearnedNRMSE('l2'), LearnedNRMSE(),
    QuantizationSurrogate(magnitude='rate'),
    QuantizationSurrogate('noise', magnitude='log')
]
NAMES = [
    '-'.join([
        getattr(o, 'name', type(o).__name__),
        *([o.definition] if isinstance(o, Perturbation) else ()),
        *(['valid'] if getattr(o, 'valid', False) else ())
    ]) for o in OPERATIONS + TRAININGS
]
SHAPES = dict(
    ConvEstimator=[(4, 8, 12, 10), (4, 16, 6, 5)],
    TokenEstimator=[(4, 30, 8), (4, 16)])
IMAGES = ['a', 'b', 'c', 7]


def mode_for(operation):
    """That of estimators which the operation can use."""
    uses = getattr(operation, 'distortion', None) or getattr(
        operation, 'policy', operation)
    modes = getattr(uses, 'modes', ('envelope', ))
    one_for_all = getattr(operation, 'definition', '') == 'channel'
    return 'envelope' if 'envelope' in modes and not one_for_all \
        else 'sensitivity'


def make_neck(kind='ConvEstimator', operation=None):
    torch.manual_seed(0)
    mode = mode_for(operation)
    neck = FeatJNDNeck(
        dict(type=f'mmfeatjnd.{kind}', hidden_channels=8, mode=mode),
        in_channels=[8, 16])
    for estimator in neck.estimators:
        torch.nn.init.normal_(estimator.expand.weight, std=0.3)
        estimator.initial.fill_(1)  # taken for trained
        estimator.channels.high.fill_(3)
        if mode == 'sensitivity':
            estimator.known.map.normal_()
            estimator.known.others.normal_()
    return neck


def make_features(kind='ConvEstimator'):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(s, generator=generator).relu() + 0.01
            for s in SHAPES[kind]]


def needed(operation, features):
    """What the operation needs to know of the images."""
    found = {}
    if getattr(operation, 'needs_sensitivity', False):
        found['sensitivity'] = {
            i: [x.square() + 0.1] for i, x in enumerate(features)}
    if getattr(operation, 'needs_detections', False):
        found['detections'] = [
            features[0].new_tensor([[0.0, 0.0, 0.5, 0.4]])] * len(IMAGES)
    return found


def run(neck, operation, features, device, content=None):
    """What comes out and what was measured, on the CPU."""
    neck = neck.to(device)
    features = [x.to(device) for x in features]
    with neck.run(
            operation, IMAGES, content=content,
            **needed(operation, features)) as result:
        out = neck.apply_levels(features)
    return out, result


@pytest.mark.parametrize('kind', SHAPES)
@pytest.mark.parametrize('operation', OPERATIONS + TRAININGS, ids=NAMES)
def test_operations(device, share_of_others, operation, kind):
    if kind == 'TokenEstimator' and getattr(
            operation, 'policy_name', '') == 'plan':
        pytest.skip('the plan is one of maps')
    """As on the CPU. The last bit of an exponential may differ, and with it,
    rarely, on which side of a threshold a value lies."""
    if kind == 'TokenEstimator' and getattr(
            operation, 'needs_detections', False):
        pytest.skip('only a map lies in boxes')
    (expected, on_cpu), (out, result) = (
        run(make_neck(kind, operation), operation, make_features(kind), where)
        for where in ('cpu', device))
    quantizes = isinstance(operation, (Quantization, QuantizationSurrogate))
    for a, b in zip(out, expected):
        assert a.device.type == device.type
        assert share_of_others(a, b) <= (1e-2 if quantizes else 0)
    for name, value in on_cpu.measured.items():
        torch.testing.assert_close(
            result.measured[name].cpu(), value, rtol=2e-2 if quantizes else
            1e-4, atol=1e-6)
    if operation in TRAININGS:
        magnitude = operation.magnitude(result.kept)
        torch.testing.assert_close(
            magnitude.cpu(), operation.magnitude(on_cpu.kept), rtol=1e-3,
            atol=1e-5)


@pytest.mark.parametrize('operation', OPERATIONS + TRAININGS, ids=NAMES)
def test_nothing_waits(device, no_waiting, operation):
    """Also with padding, where images are of several sizes."""
    neck = make_neck(operation=operation).train(operation in TRAININGS)
    features = make_features()
    content = [(12, 10, 12, 10), (9, 10, 12, 10)] * 2
    run(neck, operation, features, device, content)  # compiles, and caches
    features = [x.to(device) for x in features]
    known = needed(operation, features)
    with no_waiting():
        with neck.run(
                operation, IMAGES, content=content, **known) as result:
            out = neck.apply_levels(features)
        assert result.measured is not None
        if operation in TRAININGS:
            (operation.magnitude(result.kept) + out[0].sum()).backward()
    assert all(x.isfinite().all() for x in out)


@pytest.mark.parametrize('operation', OPERATIONS + TRAININGS, ids=NAMES)
def test_nothing_stays_on_the_cpu(operation):
    """Tensors without values mix with no others."""
    neck = make_neck(operation=operation).train(operation in TRAININGS)
    content = [(12, 10, 12, 10), (9, 10, 12, 10)] * 2
    out, result = run(neck, operation, make_features(), 'meta', content)
    assert all(x.is_meta for x in (*out, *result.measured.values()))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('operation', OPERATIONS, ids=NAMES[:len(OPERATIONS)])
def test_half_precision(device, share_of_others, operation, dtype):
    """Finite, of their dtype, and near to float32."""
    features = [x.to(dtype) for x in make_features()]
    out, result = run(
        make_neck(operation=operation), operation, features, device)
    exact, _ = run(make_neck(operation=operation), operation,
                   [x.float() for x in features], device)
    for a, b in zip(out, exact):
        assert a.dtype == dtype and a.isfinite().all()
        # 2^-8 of bfloat16 and 2^-11 of half precision, of larger values more
        assert share_of_others(a, b, 0.05) < 0.02
    assert all(v.isfinite().all() for v in result.measured.values())


def test_noise_is_that_of_the_cpu(device):
    keys = F.image_keys(IMAGES, 3, device)
    assert torch.equal(keys.cpu(), F.image_keys(IMAGES, 3))
    on_cpu = keys.cpu()
    assert torch.equal(
        F.uniform_noise(keys, (8, 12, 10), 5).cpu(),
        F.uniform_noise(on_cpu, (8, 12, 10), 5))
    # the logarithm and the cosine differ in their last bits
    torch.testing.assert_close(
        F.gaussian_noise(keys, (8, 12, 10), 5).cpu(),
        F.gaussian_noise(on_cpu, (8, 12, 10), 5), rtol=1e-5, atol=1e-6)
    x = torch.arange(4 * 8 * 12.).view(4, 8, 12)
    for shuffle in (F.shuffle_tokens, F.shuffle_channels):
        assert torch.equal(
            shuffle(x.to(device), keys, 1).cpu(), shuffle(x, on_cpu, 1))


def test_estimators_follow_the_features(device):
    """The statistics of training."""
    a, b = make_neck().train(), make_neck().train().to(device)
    for _ in range(3):
        for neck, where in ((a, 'cpu'), (b, device)):
            for estimator, feature in zip(neck.estimators, make_features()):
                estimator.follow([feature.to(where)])
    for key, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[key].cpu(), value)


def test_code_length_and_stream(device):
    """The stream of symbols on a GPU is that of the same on the CPU."""
    feature = make_features()[0]
    steps = F.make_steps(F.range_log_steps(feature), 'token').scaled(0.1)
    quantized, _ = F.quantize(feature, F.Allocation(steps))
    there = F.QuantizedLevel(
        quantized.symbols.to(device),
        F.Steps(*(None if x is None else x.to(device) for x in steps)))
    torch.testing.assert_close(
        F.code_length(F.fit_entropy_model(there)).cpu(),
        F.code_length(F.fit_entropy_model(quantized)), rtol=1e-5, atol=0)
    for i in range(4):
        data = encode_image([there.of_image(i)])
        assert data == encode_image([quantized.of_image(i)])
        level, = decode_image(data)
        assert torch.equal(level.symbols, quantized.symbols[i:i + 1])


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_compiled_quantizer(device, dtype):
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(4, 64, 32, 32, generator=generator).to(device, dtype)
    step = torch.rand(4, 64, 1, 1, generator=generator).to(device) + 0.1
    rounding = torch.rand(4, 64, 32, 32, generator=generator).to(device) / 2
    expected = to_symbols(feature, step, rounding, 0.7)
    for function in (symbols_and_values, compiled()):
        symbols, value = function(feature, step, rounding, 0.7)
        # the division may differ in its last bit
        assert (symbols != expected).float().mean() < 1e-5
        torch.testing.assert_close(value, from_symbols(symbols, step))


def test_heat_map(device):
    maps = []
    for where in ('cpu', device):
        recorder = JNDMapRecorder()
        run(make_neck(), recorder, make_features(), where)
        maps.append(recorder.heat_map((24, 20)).cpu())
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow(device):
    """Over 200 runs; on the CPU, objects that live on are counted."""
    neck, features = make_neck().to(device), make_features()
    features = [x.to(device) for x in features]
    operation = Quantization('featjnd', scale=0.5)

    def used():
        gc.collect()
        if device.type == 'cuda':
            return torch.cuda.memory_allocated()
        return sum(isinstance(x, torch.Tensor) for x in gc.get_objects())

    for i in range(220 if device.type == 'cuda' else 30):
        with neck.run(operation, IMAGES):
            neck.apply_levels(features)
        if i == 19:
            before = used()
    assert used() <= before
