import copy

import pytest
import torch

from mmfeatjnd.apis import build_model, measure_rates, save_estimator
from mmfeatjnd.apis.launch import build_runner
from mmfeatjnd.apis.rate import _solve, name_policies


# ------------------------------------------------------------ name_policies
def test_names_say_what_differs():
    token = dict(type='featjnd', granularity='token', jnd_rounding=False)
    clip = dict(type='clip-uniform', levels=8)
    assert name_policies(['featjnd', token, clip]) == {
        'featjnd': 'featjnd',
        'featjnd-token-no-jnd-rounding': token,
        'clip-uniform-8': clip
    }


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match="two policies are named 'uniform'"):
        name_policies(['uniform', dict(type='uniform')])


# ------------------------------------------------------------------- _solve
@pytest.mark.parametrize('target', [0.01, 1.0, 30.0])
def test_scale_of_a_rate(target):
    scale = _solve(lambda octave: 2.0**-octave, target, -12)
    assert scale == pytest.approx(1 / target, rel=2e-3)


def test_scale_out_of_reach():

    def rate(octave):
        return 2.0**-octave

    assert _solve(rate, 0.9, 0) == pytest.approx(1 / 0.9, rel=2e-3)
    assert _solve(rate, 1.1, 0) is None  # finer than the policy goes
    assert _solve(lambda octave: 2.0, 1.0, -12) is None


# ------------------------------------------------------------ measure_rates
@pytest.fixture(scope='module')
def bench(small_classifier):
    """A tiny classifier with random weights, images, two estimators."""
    cfg, root = small_classifier
    cfg.work_dir = str(root / 'work')
    torch.manual_seed(0)
    model = build_model(cfg.copy()).eval()
    torch.save(dict(state_dict=model.state_dict()), root / 'host.pth')
    estimator, = model.neck.estimators
    files = []
    for i in range(2):
        estimator.initial.fill_(1)
        torch.nn.init.normal_(estimator.expand.weight, std=0.5 + 0.5 * i)
        files.append(str(root / f'{i}.pth'))
        save_estimator(model, files[-1])
    return cfg, str(root / 'host.pth'), files


@pytest.mark.slow
def test_rates(bench):
    cfg, host, files = bench
    policies = name_policies([
        'featjnd', 'permuted', 'uniform',
        dict(type='clip-uniform', levels=2)
    ])
    rows = measure_rates(
        cfg, host, policies, [0.5, 1.5], [0.4], (0, 1), files,
        calibration_images=8, calibration_split='test')
    assert rows[0] == dict(policy='clean', metrics=rows[0]['metrics'])
    rates = {(r['policy'], r['bits'], r['seed']): r
             for r in rows[1:] if r['protocol'] == 'rate'}
    assert set(rates) == {
        *((policy, bits, seed) for policy in ('featjnd', 'permuted')
          for bits in (0.5, 1.5) for seed in (0, 1)),
        ('uniform', 0.5, 0), ('uniform', 1.5, 0),
        ('clip-uniform-2', 0.5, 0)  # two levels cannot take 1.5 bits
    }
    for (_, bits, _), row in rates.items():
        # the scale was found on these very images
        assert row['bits_per_element'] == pytest.approx(bits, rel=0.02)
        assert row['coded_bits_per_element'] > row['bits_per_element']
        assert row['coded_bits_per_element'] == pytest.approx(
            row['coded_bytes'] * 8 / (16 * 16 * 16))
        assert row['noise_budget'] is None and row['scale'] > 0
    # every seed has its own estimator, and its own permutation
    first, second = (rates['featjnd', 0.5, seed] for seed in (0, 1))
    assert first['scale'] != second['scale']
    assert rates['permuted', 0.5, 0]['scale'] != first['scale']

    noises = [r for r in rows if r.get('protocol') == 'equal-noise']
    assert len(noises) == 2 + 2 + 1 + 1
    for row in noises:
        assert row['bits'] is None and row['noise_budget'] == 0.4
        if row['policy'] != 'clip-uniform-2':
            assert row['nrmse_measured'] == pytest.approx(0.4, rel=0.02)

    # two ways to the same numbers: one pass for all, and a test with the hook
    row = rates['featjnd', 1.5, 1]
    tested = hooked(cfg, host, files[1], policy='featjnd', scale=row['scale'],
                    coded=True)
    assert tested['jnd/nrmse'] == pytest.approx(row['nrmse_measured'])
    assert tested['jnd/coded_bytes'] == row['coded_bytes']
    assert tested['accuracy/top1'] == row['metrics']['accuracy/top1']


def hooked(cfg, host, estimator, **kwargs):
    cfg = copy.deepcopy(cfg)
    cfg.load_from = host
    cfg.custom_hooks = [
        dict(
            type='mmfeatjnd.QuantizationHook', estimator=estimator, **kwargs)
    ]
    return build_runner(cfg).test()


def test_rates_without_bitstreams(bench):
    cfg, host, _ = bench
    rows = measure_rates(
        cfg, host, {'u': 'uniform', 'g': 'gradient'}, [1.0], seeds=(0, 1),
        calibration_images=1, calibration_split='test', coded=False)
    assert [(r['policy'], r.get('seed')) for r in rows] == [
        ('clean', None), ('u', 0), ('g', 0)]
    for row in rows[1:]:
        assert 'coded_bits_per_element' not in row
        # one of the 8 images was looked at
        assert row['bits_per_element'] == pytest.approx(1.0, rel=0.2)


def test_what_cannot_be_measured_is_refused_at_once(bench):
    cfg, host, files = bench

    def measure(policy='uniform', *args):
        measure_rates(cfg, host, {'p': policy}, *args)

    with pytest.raises(ValueError, match='bits must be positive'):
        measure('uniform', [0.5, 0.0])
    with pytest.raises(ValueError, match='must be positive'):
        measure('uniform', [0.5], [-1.0])
    with pytest.raises(ValueError, match='policy must be one of'):
        measure('best', [0.5])
    with pytest.raises(ValueError, match='give one for each'):
        measure('uniform', [0.5], [], (0, 1, 2), files)
    with pytest.raises(RuntimeError, match='needs a trained estimator'):
        measure('featjnd', [0.5])
