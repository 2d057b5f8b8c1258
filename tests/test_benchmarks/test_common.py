"""A whole benchmark on made-up data: what is trained, measured, published."""
import json
import sys

import common
import featjnd
import pytest
from mmengine.config import Config

from mmfeatjnd.apis import measure_curve

NRMSE = (0.5, 1.0)


def run(folder, *argv, **kwargs):
    """A small benchmarks/featjnd.py; the published result, and how often
    rows were measured."""
    parser = common.benchmark_parser('')
    parser.add_argument('--nrmse', nargs='+', type=float,
                        default=NRMSE)
    args = parser.parse_args(
        ['tiny', '--work-dir', str(folder / 'work'), *argv])
    benchmark = common.CurveBenchmark(args, 'featjnd',
                                      dict(nrmse=NRMSE))
    calls = []

    def measure(cfg, host, estimators):
        calls.append((host, *estimators))
        return measure_curve(cfg, host, ['featjnd', 'gaussian'],
                             args.nrmse, common.SEEDS, estimators)

    rows = benchmark.measure(
        'curve', measure, benchmark.estimators('featjnd', {}),
        nrmse=args.nrmse, **kwargs)
    benchmark.publish('Some claim.', rows)
    return json.loads(
        (folder / 'results/featjnd_tiny.json').read_text()), calls


@pytest.mark.slow
def test_rows_are_taken_for_the_same_settings_only(tiny):
    full, calls = run(tiny)
    assert len(calls) == 1
    assert run(tiny) == (full, [])
    assert full['reduced'] is False
    assert full['test_split'] == 'test, all 8 images'
    assert full['train_split'] == 'train, 8 images'
    assert full['estimator_draws'] == 3 * 64 // 16  # 3 iterations of 4
    assert full['protocol'] == common.PROTOCOL
    assert set(full['clean']) == {'accuracy/top1'}
    assert len(full['rows']) == 4

    # whatever else is asked is measured anew
    thinned, calls = run(tiny, '--every', '2')
    assert calls and thinned['reduced'] is True
    assert thinned['test_split'] == 'test, 4 of 8 images'
    fewer, calls = run(tiny, '--nrmse', '0.5')
    assert calls and fewer['reduced'] is True and len(fewer['rows']) == 2
    more, calls = run(tiny, '--nrmse', '0.25', '0.5', '1.0')
    assert calls and more['reduced'] is False
    # by the same host and estimator: nothing was trained again
    folder = tiny / 'work' / 'tiny'
    assert len(list(folder.glob('host_*'))) == 1
    assert len(list(folder.glob('featjnd_seed0_*'))) == 1
    # and does not take the first one's place
    assert run(tiny) == (full, [])

    # another host, another estimator: an epoch earlier
    first = next(folder.glob('host_*'))
    cfg = Config.fromfile(tiny / 'host.py')
    cfg.train_cfg.max_epochs = 1
    other_host = common.train(cfg, tiny / 'other')
    other, calls = run(tiny, '--host', other_host)
    assert calls[0][0] == other_host and str(first) not in calls[0][1]
    assert len(list(folder.glob('featjnd_seed0_*'))) == 2
    assert other['host_checkpoint'] != full['host_checkpoint']
    assert '--host' in other['train_split']


def test_a_host_that_is_not_there_is_found_before_anything(
        tiny, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        run(tiny, '--host', '/nope.pth')
    assert 'no file at /nope.pth' in capsys.readouterr().err
    assert not (tiny / 'work').exists()


@pytest.mark.parametrize('name', ['cifar10', 'yolox'])
def test_defaults_are_all_images_and_strengths_of_the_host(name, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['featjnd.py', name])
    args = featjnd.parse_args()
    assert args.every == 1 and args.detector == (name == 'yolox')
    assert args.nrmse == featjnd.NRMSE[args.detector]
    assert set(args.valid_nrmse) <= set(args.nrmse)
    asked = featjnd.settings(args)
    # the references once, and none kept valid
    once = [x for x in asked if x['distortion'] == 'fisher']
    assert len(once) == len(args.nrmse) and not any(x['valid'] for x in once)
    ours = [x for x in asked if x['distortion'] == 'featjnd']
    assert len(ours) == 3 * (len(args.nrmse) + len(args.valid_nrmse))
    assert ('outside-boxes' in {x['distortion'] for x in asked}
            ) == args.detector


@pytest.mark.slow
def test_a_run_with_other_options_is_not_taken(tiny):
    cfg = Config.fromfile(tiny / 'host.py')
    cfg.train_cfg.max_epochs = 1
    first = common.train(cfg, tiny / 'run')
    assert common.train(cfg, tiny / 'run') == first
    cfg.train_dataloader.batch_size = 2
    assert common.train(cfg, tiny / 'run') != first


def test_draws(tiny):
    # 2 epochs of 8 images, 3 iterations of 4
    assert common.draws(Config.fromfile(tiny / 'host.py')) == 16
    assert common.draws(Config.fromfile(tiny / 'featjnd.py')) == 12


def test_clean_is_that_of_all_parts():
    rows = [dict(distortion='clean', metrics=dict(a=80., b=float('nan'))),
            dict(distortion='gaussian', metrics=dict(a=70.)),
            dict(distortion='clean', metrics=dict(a=80.1, b=float('nan')))]
    assert common.clean_of(rows)['a'] == 80.
    rows[2]['metrics']['a'] = 70.
    with pytest.raises(RuntimeError, match='measured twice'):
        common.clean_of(rows)


def test_what_is_not_defined_is_published_as_null(tiny):
    nan = float('nan')
    file = common.publish('x', dict(clean=dict(a=nan), rows=[dict(b=[nan])]))
    result = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert result['clean'] == dict(a=None) and result['rows'] == [
        dict(b=[None])]
    assert result['protocol'] == common.PROTOCOL
    assert 'mmfeatjnd' in result['versions']


def test_every_benchmark_names_configs_that_are_there():
    for name, benchmark in common.BENCHMARKS.items():
        for kind in ('host', 'featjnd', 'quantization'):
            assert (common.CONFIGS / benchmark[kind]).is_file(), (name, kind)
