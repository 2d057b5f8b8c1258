"""tools/make_plan.py, and what is coded by its plans."""
import json
import math

import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import OperationTest
from mmfeatjnd.apis.metric import estimate_metric
from mmfeatjnd.apis.plan import (
    CODES,
    choose_powers,
    expected_cost,
    make_plan,
    step_at,
    transforms_of,
)
from mmfeatjnd.coding import BitstreamError
from mmfeatjnd.coding.plan_stream import (
    decode_planned,
    read_plan_header,
)
from mmfeatjnd.functional import (
    frequency_groups,
    make_transform,
    metric_basis,
    to_maps,
)
from mmfeatjnd.models import CheckpointError, Quantization, codec_plan
from mmfeatjnd.models.codec_plan import (
    LevelCode,
    load_plan,
    rounded_part,
    save_plan,
    step_for,
)
from mmfeatjnd.utils import ConfigError


def of(given):
    return Config.fromfile(given[0]), str(given[1])


@pytest.fixture(scope='module')
def plan(small):
    return make_plan(*of(small), images=12, split='backbone.layer1', block=4,
                     nats=(1e-7, 4e-7, 1.6e-6))


def kept(given, operation, split=None):
    """The run of an operation over one batch."""
    test = OperationTest(*of(given), split=split)
    with test.batch(next(iter(test.dataloader())), [operation]) as (
            _, predict):
        return test, predict(operation)[1]


# ----------------------------------------------------------------- the plan
def test_a_plan_by_the_tool(run_tool, small, tmp_path, capfd):
    out = tmp_path / 'p.safetensors'
    run_tool('make_plan.py', *small, '--images', 8, '--split',
             'backbone.layer1', '--block', 4, '--nats', 1e-7, 1e-6, '--out',
             out, '--work-dir', tmp_path / 'work')
    said = capfd.readouterr().out
    assert "code 'task', 8 pictures" in said
    assert 'level 0: 8 channels, blocks of 4 x 4, a basis for each frequency' \
        in said
    found = load_plan(out)
    assert (found.split, found.images) == ('backbone.layer1', 8)
    assert len(found.curve) == 2 and f'Saved to {out}' in said


def test_what_is_saved_comes_back(plan, tmp_path):
    save_plan(plan, tmp_path / 'p')
    found = load_plan(tmp_path / 'p')
    assert found.digest == plan.digest
    assert found._replace(parts=None) == plan._replace(parts=None)
    part, same = plan.parts[0][0], found.parts[0][0]
    for a, b in zip(part, same):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    # one byte of anything makes it another one
    basis = part.basis.clone()
    basis[0, 0, 0] += 1
    other = plan._replace(parts={0: (part._replace(basis=basis), )})
    assert other.digest != plan.digest


def test_the_components_of_a_plan(plan, small):
    """Uncorrelated, spread as the scales say, and a step costs what the
    closed form and the curve say."""
    part, = plan.parts[0]
    assert part.gain.shape == (16, 8) and part.basis.shape == (16, 8, 8)
    test = OperationTest(*of(small), split='backbone.layer1')
    seen = []

    def look(feature, level, visit):
        seen.append(feature)
        return feature

    for batch in test.dataloader():
        data = test.model.data_preprocessor(batch, False)
        with torch.no_grad(), test.neck.run(look, data['data_samples']):
            test.model.predict(**data)
    z, = LevelCode(plan.parts[0], torch.device('cpu')).components(
        torch.cat(seen))
    assert z.shape == (12, 128, 8, 8)
    spread = z.abs().mean((0, 2, 3)) / (2 * math.log(2))
    scale = (part.scale.flatten() / 4.0).exp2()
    assert (spread / scale).log2().abs().max() < 0.13  # half a quarter
    tokens = z.transpose(0, 1).flatten(1)
    first = torch.corrcoef(tokens[:8])
    assert (first - torch.eye(8)).abs().max() < 0.1


def test_the_curve_is_what_was_measured(plan, small):
    (low, cheap), *_, (high, dear) = plan.curve
    assert low < high and cheap < dear
    assert 0.5e-7 < cheap < 4e-7
    step = step_for(plan, math.sqrt(cheap * dear))
    assert low < step < high
    for nats in (cheap / 2, dear * 2):
        with pytest.raises(ConfigError, match='beyond what the plan has'):
            step_for(plan, nats)
    operation = Quantization(dict(type='plan', plan=plan), tolerance=cheap)
    rows = OperationTest(*of(small), split='backbone.layer1').measure(
        [(0, operation)], nats=True)
    assert rows[1]['metrics']['kl'] == pytest.approx(cheap, rel=0.1)
    assert rows[1]['scale'] == pytest.approx(low, rel=0.02)


def test_the_closed_form(plan):
    blocks = {0: [64.0]}
    costs = [expected_cost(plan.parts, blocks, s) for s in (1e-6, 1e-5)]
    # fine steps: N step^2 / 24
    for step, cost in zip((1e-6, 1e-5), costs):
        assert cost == pytest.approx(64 * 128 * step**2 / 24, rel=1e-3)
    step = step_at(plan.parts, blocks, 1e-6)
    assert expected_cost(plan.parts, blocks, step) == pytest.approx(
        1e-6, rel=0.03)  # on the grid of classes


@pytest.mark.parametrize('code', CODES)
def test_every_code_beats_nothing_and_costs_something(code, small):
    found = make_plan(*of(small), code=code, images=12,
                      split='backbone.layer1', block=4, nats=(1e-7, 1e-6))
    assert found.code == code
    part, = found.parts[0]
    assert part.block == (1 if code in ('pca', 'uniform') else 4)
    assert part.rectified == (code == 'uniform')  # behind a ReLU
    one = Quantization(
        dict(type='plan', plan=found), scale=found.curve[0][0], coded=True)
    _, run = kept(small, one, 'backbone.layer1')
    measured = run.measured
    # as an ideal coder's, and few bytes more
    assert ((measured['coded_bytes'] - measured['bits'] / 8).abs() <
            0.01 * measured['coded_bytes'] + 14).all()


def test_the_task_takes_fewer_bits_than_one_step(small):
    """At equal cost, on a host of random weights."""
    bits = {}
    for code in ('task', 'pca-dct', 'uniform'):
        found = make_plan(*of(small), code=code, images=12,
                          split='backbone.layer2', nats=(1e-7, 4e-7))
        operation = Quantization(
            dict(type='plan', plan=found), tolerance=found.curve[0][1])
        rows = OperationTest(*of(small), split='backbone.layer2').measure(
            [(0, operation)], nats=True)
        bits[code] = rows[1]['bits_per_element']
    assert bits['task'] < 0.8 * min(bits['pca-dct'], bits['uniform'])


def test_levels_of_a_detector(boxes, run_tool, tmp_path):
    """Maps of several sizes, without their padding; sizes of a file."""
    found = make_plan(*of(boxes), images=8, nats=(0.1, 1.0))
    assert sorted(found.parts) == [0, 1, 2, 3]
    assert [p[0].block for p in found.parts.values()] == [4, 5, 1, 1]
    operation = Quantization(
        dict(type='plan', plan=found), scale=found.curve[0][0], coded=True)
    _, run = kept(boxes, operation)
    assert (run.measured['coded_bytes'] > 20).all()


def test_bases_are_shared_until_the_file_is_small(boxes):
    metric = estimate_metric(*of(boxes), images=8, block=4)
    metric = metric._replace(images=1 << 20)  # for a basis of each frequency
    sizes = []
    for limit in (1 << 30, 20000, 1):
        found = transforms_of(metric, max_bytes=limit)
        sizes.append(sum(x.transform.basis.numel()
                         for every in found.values() for x in every))
        for every in found.values():
            for transform, grouping, bits in every:
                group = frequency_groups(transform.block, grouping)
                assert torch.equal(transform.group, group)
                assert bits == (4 if limit == 1 else 8)
    assert sizes[0] > 20000 >= sizes[1] > sizes[2] == sum(
        c * c for c in (8, 16, 32, 64))


@pytest.mark.parametrize('channels', [7, 32])
def test_bases_of_few_bits_fit_nearly_as_well(channels):
    """In bits of an element at equal nats, at fine steps, where every wrong
    component counts: channels differ by 1,000."""
    torch.manual_seed(0)
    deviation = torch.logspace(-1, 1, channels)
    mixed = torch.randn(channels, channels) / channels**0.5
    mixed += torch.eye(channels)
    covariance = mixed @ mixed.T * deviation[:, None] * deviation
    metric = torch.linalg.inv(covariance) + torch.diag(deviation**-2)
    basis = metric_basis(metric.double()[None], covariance.double()[None])
    exact = make_transform(
        1, torch.zeros(1, channels), basis.float(),
        torch.zeros(1, dtype=torch.long), torch.ones(1, channels))

    def bits_of(transform):
        basis = transform.basis[0].double()
        inverse = torch.linalg.inv(basis)
        nats = (inverse.T @ metric.double() @ inverse).trace()
        spread = (basis @ covariance.double() @ basis.T).diagonal()
        return float(spread.log2().mean() / 2 + nats.log2() / 2)

    for bits, most in ((8, 0.03), (6, 0.06), (5, 0.2)):
        part = rounded_part(exact, 'shared', bits)
        assert part.basis.shape == (1, channels, -(-channels * bits // 8))
        assert abs(bits_of(part.transform) - bits_of(exact)) < most


# ------------------------------------------------------------- the stream
def test_an_image_is_its_size_its_step_and_its_symbols(plan, small):
    operation = Quantization(
        dict(type='plan', plan=plan), scale=plan.curve[0][0])
    test, run = kept(small, operation, 'backbone.layer1')
    streams = operation.streams(run)
    code = LevelCode(plan.parts[0], torch.device('cpu'))
    (_, quantized), = run.kept
    for i, data in enumerate(streams):
        header = read_plan_header(data, plan.digest)
        assert header.size == (32, 32) and header.start == 5
        assert not header.adapted
        parts = decode_planned(
            data, plan.digest, [quantized.symbols.shape[1:]],
            [p.model for p in plan.parts[0]],
            float(quantized.steps.base[i]))
        assert torch.equal(parts[0].symbols, quantized.symbols[i:i + 1])
        # and these are the features that the host got
        z = parts[0].symbols * quantized.steps.base[i]
        back = code.feature([z], torch.zeros(1, 8, 32, 32))
        assert to_maps(back)[0].isfinite().all()


def test_damaged_streams_and_another_plan(plan, small):
    operation = Quantization(
        dict(type='plan', plan=plan), scale=plan.curve[-1][0])
    _, run = kept(small, operation, 'backbone.layer1')
    data = operation.streams(run)[0]
    for i in range(0, len(data), 3):
        wrong = data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1:]
        with pytest.raises(BitstreamError):
            read_plan_header(wrong, plan.digest)
        with pytest.raises(BitstreamError):
            read_plan_header(data[:i], plan.digest)
    with pytest.raises(BitstreamError, match='made with another plan'):
        read_plan_header(data, b'another')
    with pytest.raises(BitstreamError, match='version 3, but'):
        read_plan_header(bytes([6]) + data[1:], plan.digest)
    with pytest.raises(BitstreamError, match='oversized'):
        decode_planned(data, plan.digest, [(128, 1 << 12, 1 << 12)],
                       [p.model for p in plan.parts[0]], 1.0)


# --------------------------------------------------------------- the picture
def test_powers_are_chosen_by_bits(plan, small):
    test = OperationTest(*of(small), split='backbone.layer1')
    loader = test.dataloader()
    nats = plan.curve[1][1]
    found = choose_powers(test, loader, plan, nats)
    assert found.image_power in (0, 0.125, 0.25)
    assert found.block_power == 0  # there is no estimator
    assert choose_powers(test, loader, plan, nats, tail=False) == plan


def test_the_steps_of_an_image_follow_how_sure_the_host_is(plan, small):
    policy = dict(type='plan', plan=plan._replace(image_level=0.0),
                  image_power=0.25)
    operation = Quantization(policy, scale=0.01)
    assert operation.needs_uncertainty
    _, run = kept(small, operation, 'backbone.layer1')
    (_, quantized), = run.kept
    expected = 0.01 * run.uncertainty**-0.25
    ratio = quantized.steps.base / expected
    assert ratio.log2().abs().max() < 0.5 / 28 + 1e-4


def test_a_plan_of_another_host_or_split(plan, small, tmp_path):
    save_plan(plan, tmp_path / 'p')
    operation = Quantization(dict(type='plan', plan=tmp_path / 'p'))
    test = OperationTest(*of(small), split='backbone.layer2')
    with pytest.raises(CheckpointError, match="is of split='backbone.layer1'"):
        operation.check(test.neck)
    other = plan._replace(host_hash='0' * 64)
    test = OperationTest(*of(small), split='backbone.layer1')
    with pytest.raises(CheckpointError, match='another host checkpoint'):
        Quantization(dict(type='plan', plan=other)).check(test.neck)
    (tmp_path / 'q').write_bytes(b'no plan')
    with pytest.raises(CheckpointError, match='is no plan'):
        load_plan(tmp_path / 'q')
    with pytest.raises(ValueError, match='only the steps of a plan'):
        Quantization('one-step', tolerance=0.02)
    with pytest.raises(ValueError, match='must lie in'):
        Quantization(dict(type='plan', plan=plan, block_power=2))


def test_a_metric_without_frequencies(small):
    metric = estimate_metric(*of(small), images=4)
    with pytest.raises(ConfigError, match="block='auto'"):
        transforms_of(metric)
    with pytest.raises(ValueError, match="'other'"):
        transforms_of(metric, 'other')


def test_the_hook_of_a_plan_knows_its_split(plan, small, tmp_path, run_tool):
    """As the help of tools/make_plan.py says it."""
    save_plan(plan, tmp_path / 'plan.safetensors')
    config, checkpoint = small
    run_tool('test.py', config, checkpoint, '--work-dir', tmp_path / 'work',
             '--hook', "dict(type='mmfeatjnd.QuantizationHook',coded=True,"
             f"tolerance={plan.curve[0][1]},policy=dict(type='plan',"
             f"plan='{tmp_path}/plan.safetensors'))")
    file, = (tmp_path / 'work').rglob('*.json')
    found = json.loads(file.read_text().splitlines()[-1])
    assert 0 < found['jnd/bits_per_pixel'] < 100


def test_damaged_tables_are_told(plan, tmp_path):
    save_plan(plan, tmp_path / 'p')
    assert (tmp_path / 'p').stat().st_size < sum(
        x.numel() * x.element_size() for part in plan.parts[0] for x in part
        if isinstance(x, torch.Tensor)) + 4000
    about, tensors = codec_plan._KIND.read(tmp_path / 'p')
    for scale in (tensors['0.0.scale'][:-8], torch.zeros(9).to(torch.uint8),
                  codec_plan._deflated(torch.zeros(3, 8).to(torch.int8)),
                  codec_plan._deflated(torch.zeros(99, 8).to(torch.int8))):
        codec_plan._KIND.write(tmp_path / 'q', dict(
            tensors, **{'0.0.scale': scale}), about, 'it')
        with pytest.raises(CheckpointError, match='is no whole plan'):
            load_plan(tmp_path / 'q')
