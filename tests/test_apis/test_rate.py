import copy

import numpy as np
import pytest
import torch
from PIL import Image

from mmfeatjnd.apis import build_model, measure_rates, save_estimator
from mmfeatjnd.apis.building import build_runner
from mmfeatjnd.apis.data import split_dataloader
from mmfeatjnd.apis.rate import _solve, name_policies


# ------------------------------------------------------------ name_policies
def test_names_say_what_differs():
    token = dict(type='featjnd', granularity='token', jnd_rounding=False)
    clip = dict(type='clip-uniform', bins=8)
    assert name_policies(['featjnd', token, clip]) == {
        'featjnd': 'featjnd',
        'featjnd-token-no-jnd-rounding': token,
        'clip-uniform-8': clip
    }


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match="two policies are named 'one-step'"):
        name_policies(['one-step', dict(type='one-step')])


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
    policies = name_policies(['one-step', dict(type='clip-uniform', bins=2)])
    for name in ('featjnd', 'permuted-steps'):  # with steps that differ
        policies[name] = dict(type=name, power=1)
    rows = measure_rates(
        cfg, host, policies, [0.5, 1.5], [0.4], (0, 1), files,
        calibration_images=8, calibration_split='test')
    assert rows[0] == dict(policy='clean', metrics=rows[0]['metrics'])
    rates = {(r['policy'], r['mean_bits'], r['seed']): r
             for r in rows[1:] if r['protocol'] == 'rate'}
    assert set(rates) == {
        *((policy, bits, seed) for policy in ('featjnd', 'permuted-steps')
          for bits in (0.5, 1.5) for seed in (0, 1)),
        ('one-step', 0.5, 0), ('one-step', 1.5, 0),
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
    assert rates['permuted-steps', 0.5, 0]['scale'] != first['scale']

    noises = [r for r in rows if r.get('protocol') == 'equal-noise']
    assert len(noises) == 2 + 2 + 1 + 1
    for row in noises:
        assert row['mean_bits'] is None and row['noise_budget'] == 0.4
        if row['policy'] != 'clip-uniform-2':
            assert row['nrmse_measured'] == pytest.approx(0.4, rel=0.02)

    # two ways to the same numbers: one pass for all, and a test with the hook
    row = rates['featjnd', 1.5, 1]
    tested = hooked(cfg, host, files[1], policy=policies['featjnd'],
                    scale=row['scale'], coded=True)
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
        cfg, host, {'u': 'one-step', 'g': 'gradient'}, [1.0], seeds=(0, 1),
        calibration_images=1, calibration_split='test', coded=False)
    assert [(r['policy'], r.get('seed')) for r in rows] == [
        ('clean', None), ('u', 0), ('g', 0)]
    for row in rows[1:]:
        assert 'coded_bits_per_element' not in row
        # one of the 8 images was looked at
        assert row['bits_per_element'] == pytest.approx(1.0, rel=0.2)


def test_what_cannot_be_measured_is_refused_at_once(bench):
    cfg, host, files = bench

    def measure(policy='one-step', *args):
        measure_rates(cfg, host, {'p': policy}, *args)

    with pytest.raises(ValueError, match='mean_bits must be positive'):
        measure('one-step', [0.5, 0.0])
    with pytest.raises(ValueError, match='must be positive'):
        measure('one-step', [0.5], [-1.0])
    with pytest.raises(ValueError, match='policy must be one of'):
        measure('best', [0.5])
    with pytest.raises(ValueError, match='give one for each'):
        measure('one-step', [0.5], [], (0, 1, 2), files)
    with pytest.raises(ValueError, match='needs a trained estimator'):
        measure('featjnd', [0.5])


# ---------------------------------------------------------------- calibration
@pytest.fixture
def sorted_by_class(bench, tmp_path):
    """A config whose 24 training images are sorted by class: the first 12
    hold noise, which is dear, the others a grey, which is cheap; and the
    checkpoint of its host."""
    cfg, host, _ = bench
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(tmp_path / 'work')
    rng = np.random.default_rng(0)
    for i in range(24):
        name = 'ab'[i // 12]
        path = tmp_path / 'train' / name / f'{i:02}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        low, high = ((0, 256), (120 + i, 121 + i))[i // 12]
        Image.fromarray(
            rng.integers(low, high, (32, 32, 3), 'uint8')).save(path)
    dataset = copy.deepcopy(cfg.test_dataloader.dataset)
    dataset.data_root = str(tmp_path / 'train')
    # augmentation, and a wrapper, which the calibration does without
    dataset.pipeline = [dict(type='LoadImageFromFile'),
                        dict(type='RandomErasing', erase_prob=1.0),
                        dict(type='PackInputs')]
    cfg.train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='RepeatDataset', times=3, dataset=dataset),
        sampler=dict(type='DefaultSampler', shuffle=True))
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
    return cfg, host


def images_of(loader):
    return [s.img_path for batch in loader for s in batch['data_samples']]


def test_calibration_images_are_drawn(sorted_by_class):
    """The first ones of a sorted list are of one class."""
    cfg, _ = sorted_by_class
    runner = build_runner(cfg)
    whole = images_of(split_dataloader(runner, 'train'))
    assert len(whole) == 24 and whole == sorted(whole)
    torch.manual_seed(1)
    drawn = images_of(split_dataloader(runner, 'train', sample=8))
    assert len(set(drawn)) == 8 and drawn == sorted(drawn) != whole[:8]
    assert 2 <= sum('/b/' in path for path in drawn) <= 6
    # by a seed of its own
    torch.manual_seed(2)
    np.random.seed(2)
    assert images_of(split_dataloader(runner, 'train', sample=8)) == drawn
    assert images_of(
        split_dataloader(runner, 'train', sample=8, seed=1)) != drawn
    assert images_of(split_dataloader(runner, 'train', sample=99)) == whole
    # the pipeline of the test: nothing is erased
    loader = split_dataloader(runner, 'train', sample=99)
    assert loader.batch_size == cfg.test_dataloader.batch_size
    first = next(iter(loader))['inputs'][0]
    with Image.open(whole[0]) as image:
        assert np.array_equal(
            np.array(image)[..., ::-1], first.permute(1, 2, 0).numpy())


def test_parts_of_parts(sorted_by_class):
    """Of a data set that the config cut already, or made of two."""
    cfg, _ = sorted_by_class
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.pipeline = cfg.test_dataloader.dataset.pipeline
    runner = build_runner(cfg)
    whole = images_of(split_dataloader(runner, 'train'))
    runner.cfg.test_dataloader.dataset = dict(dataset, indices=[1, 5, 20, 21])
    assert images_of(split_dataloader(runner, every=2)) == [
        whole[1], whole[20]]
    runner.cfg.test_dataloader.dataset = dict(dataset, indices=-4)
    assert images_of(split_dataloader(runner, every=2)) == whole[-4::2]
    runner.cfg.test_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[dict(dataset, indices=[0, 1, 2]),
                  dict(dataset, indices=[20, 21, 22])])
    loader = split_dataloader(runner, every=2)
    assert images_of(loader) == [whole[0], whole[2], whole[21]]
    assert loader.dataset.metainfo['classes'] == ('a', 'b')


@pytest.mark.slow
def test_the_scale_is_found_on_training_images(sorted_by_class):
    """By default, and the same as on these images of any split."""
    cfg, host = sorted_by_class
    policies, bits = {'one-step': 'one-step'}, [0.5, 1.0]
    rows = measure_rates(
        cfg, host, policies, bits, coded=False, calibration_images=24)
    other = measure_rates(
        cfg, host, policies, bits, coded=False, calibration_images=24,
        calibration_split='test')
    assert [r['scale'] for r in rows[1:]] != [r['scale'] for r in other[1:]]
    for target, row in zip(bits, other[1:]):
        assert row['bits_per_element'] == pytest.approx(target, rel=0.02)
    cfg.test_dataloader.dataset.data_root = \
        cfg.train_dataloader.dataset.dataset.data_root
    again = measure_rates(
        cfg, host, policies, bits, coded=False, calibration_images=24,
        calibration_split='test')
    assert [r['scale'] for r in again[1:]] == [r['scale'] for r in rows[1:]]
    for target, row in zip(bits, again[1:]):
        assert row['bits_per_element'] == pytest.approx(target, rel=0.02)


@pytest.mark.slow
def test_a_sample_of_a_sorted_list_finds_the_rate(sorted_by_class):
    """Half of the images cost almost nothing: the scale of the first ones
    alone makes about half of the bits."""
    cfg, host = sorted_by_class
    cfg.test_dataloader.dataset.data_root = \
        cfg.train_dataloader.dataset.dataset.data_root
    policies = {'one-step': 'one-step'}
    _, row = measure_rates(
        cfg, host, policies, [1.0], coded=False, calibration_images=12)
    assert row['bits_per_element'] == pytest.approx(1.0, rel=0.2)
    cfg.train_dataloader.dataset.dataset.indices = 12  # as it was
    _, row = measure_rates(
        cfg, host, policies, [1.0], coded=False, calibration_images=12)
    assert abs(row['bits_per_element'] - 1.0) > 0.2


def test_bits_that_no_policy_reaches(bench, caplog):
    """The clean host is measured all the same."""
    cfg, host, _ = bench
    rows = measure_rates(
        cfg, host, {'clip': dict(type='clip-uniform', bins=2),
                    'water': 'water-filling'}, [40.0],
        calibration_images=4, calibration_split='test', coded=False)
    assert [r['policy'] for r in rows] == ['clean']
    assert rows[0]['metrics']['accuracy/top1'] >= 0


def test_without_training_images(bench):
    cfg, host, _ = bench
    with pytest.raises(ValueError, match='no train_dataloader: set one, or '
                       'use the images of another split'):
        measure_rates(cfg, host, {'u': 'one-step'}, [1.0])
