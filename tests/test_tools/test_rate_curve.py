"""tools/analysis_tools/rate_curve.py, on images and a host made small."""
import functools
import json
import os

import pytest
import torch

from mmfeatjnd.apis import build_model


@pytest.fixture
def run(run_tool):
    return functools.partial(run_tool, 'analysis_tools/rate_curve.py')


@pytest.fixture(scope='module')
def host(small_classifier):
    """Config file and checkpoint of a tiny classifier with random weights."""
    cfg, root = small_classifier
    config = root / 'config.py'
    cfg.dump(config)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.neck.estimators[0].initial.fill_(1)
    torch.save(dict(state_dict=model.state_dict()), root / 'model.pth')
    return config, root / 'model.pth'


def test_rate_curve(run, host, tmp_path, capfd):
    run(*host, '--policies', 'one-step', 'permuted-steps',
        "dict(type='featjnd',granularity='token')", '--mean-bits', 0.5, 1,
        '--noise-budgets', 0.3, '--seeds', 2, '--calibration-images', 4,
        '--calibration-split', 'test',
        '--out', tmp_path / 'out', '--work-dir', tmp_path / 'work')
    assert sorted(os.listdir(tmp_path / 'out')) == [
        'noise.png', 'rates.json', 'rates.md', 'rates.png']
    rows = json.loads((tmp_path / 'out/rates.json').read_text())
    assert rows[0]['policy'] == 'clean'
    # only the permutation is random: the estimator is the checkpoint's
    assert [r['policy'] for r in rows[1:]].count('permuted-steps') == 2 * 3
    assert [r['policy'] for r in rows[1:]].count('one-step') == 3
    assert [r['policy'] for r in rows[1:]].count('featjnd-token') == 3
    table = (tmp_path / 'out/rates.md').read_text()
    assert '| featjnd-token | ' in table and 'At equal noise' in table
    assert table in capfd.readouterr().out


def test_one_protocol_without_bitstreams(run, host, tmp_path):
    run(*host, '--policies', 'one-step', '--mean-bits', '--noise-budgets', 0.3,
        '--no-coded', '--out', tmp_path / 'out', '--work-dir',
        tmp_path / 'work')
    assert sorted(os.listdir(tmp_path / 'out')) == [
        'noise.png', 'rates.json', 'rates.md']
    assert 'entropy model' in (tmp_path / 'out/rates.md').read_text()


def test_bits_that_no_policy_reaches(run, host, tmp_path, capfd):
    """It ended in an IndexError with nothing saved."""
    run(*host, '--policies', "dict(type='clip-uniform',bins=2)",
        'water-filling', '--mean-bits', 12, 40, '--no-coded',
        '--calibration-split', 'test', '--out', tmp_path / 'out')
    files = sorted(f for f in os.listdir(tmp_path / 'out')
                   if f.startswith('rates'))
    assert files == ['rates.json', 'rates.md', 'rates.png']
    rows = json.loads((tmp_path / 'out/rates.json').read_text())
    assert rows[0]['policy'] == 'clean'
    assert rows[0]['metrics']['accuracy/top1'] >= 0
    assert not [r for r in rows[1:] if r['mean_bits'] == 40]
    assert 'clip-uniform-2' not in {r['policy'] for r in rows}
    said = capfd.readouterr().out
    for bits in (12, 40):
        assert f'clip-uniform-2 cannot take {bits} bits per element' in said


def test_without_training_images(run, host, tmp_path):
    with pytest.raises((SystemExit, ValueError), match='train_dataloader'):
        run(*host, '--policies', 'one-step', '--mean-bits', 1, '--out',
            tmp_path)


def test_a_wrong_metric_does_not_lose_the_rows(run, host, tmp_path):
    with pytest.raises(SystemExit, match='measures accuracy/top1'):
        run(*host, '--policies', 'one-step', '--mean-bits', 1, '--no-coded',
            '--calibration-split', 'test',
            '--metric', 'mIoU', '--out', tmp_path)
    assert len(json.loads((tmp_path / 'rates.json').read_text())) == 2


@pytest.mark.parametrize('argv, message', [
    (['--policies', 'best'], 'policy must be one of'),
    (['--policies', 'one-step', 'one-step'], 'two policies are named'),
    (['--policies', "dict(type='featjnd',granularity='pixel')"],
     'granularity must be one of'),
    (['--policies', "dict(type='featjnd',grain='token')"], "'grain'"),
    (['--policies', "dict(type='featjnd'"], 'cannot read'),
    (['--policies', "[dict(type='featjnd')]"], 'cannot read'),
    (['--mean-bits', '0'], 'not positive'),
    (['--mean-bits', 'nan'], 'not positive'),
    (['--mean-bits'], 'give --mean-bits or --noise-budgets'),
    (['--seeds', '0'], 'less than 1'),
    (['--estimators', 'a.pth', 'b.pth'], '2 --estimators for --seeds 3'),
])
def test_wrong_arguments(run, argv, message, capsys):
    with pytest.raises(SystemExit) as error:
        run('c.py', 'c.pth', *argv, '--out', 'out')
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not os.path.exists('out')


def test_missing_files(run, host, tmp_path):
    with pytest.raises(SystemExit, match='does not exist'):
        run(tmp_path / 'no.py', host[1], '--out', tmp_path)
    with pytest.raises(SystemExit, match='there is no such file'):
        run(host[0], tmp_path / 'no.pth', '--out', tmp_path)
