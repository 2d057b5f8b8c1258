"""The protocol on COCO, without COCO: what would be run, and published."""
import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import common
import pytest
from mmengine.config import Config

from mmfeatjnd.cli.options import merge_options

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ('mask-rcnn_r50', 'retinanet_r50', 'faster-rcnn_r50')


@pytest.fixture
def coco():
    import coco
    return coco


def dry_run(coco, capsys, *argv):
    """By host, where it comes from and its commands."""
    coco.main(['--coco', '/data/coco', '--work-dir', '/work dir', '--dry-run',
               *argv])
    found = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith('# '):
            host, source = line[2:].split(': ', 1)
            found[host] = [source]
        else:
            found[host].append(shlex.split(line))
    return found


def parsed(tool, words, monkeypatch):
    """What a tool understands of its arguments."""
    path = ROOT / 'tools' / tool
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'argv', [str(path), *words])
        patch.setenv('LOCAL_RANK', '0')
        module = runpy.run_path(str(path))
        if 'parse_args' in module:
            return module['parse_args']()
        return module['parse_train_args']()


def checked(config, args):
    """A config with the options of a command, which are there already."""
    cfg = Config.fromfile(ROOT / config)
    for key in args.cfg_options:
        at = cfg
        for name in key.split('.')[:-1]:
            at = at[name] if name != 'randomness' else {}
    merge_options(cfg, args.cfg_options)
    assert cfg.test_dataloader.dataset.data_root == '/data/coco/'
    assert cfg.train_dataloader.dataset.data_root == '/data/coco/'
    assert cfg.test_evaluator.ann_file == \
        '/data/coco/annotations/instances_val2017.json'
    return cfg


def test_the_commands(coco, capsys, monkeypatch):
    found = dry_run(coco, capsys, '--gpus', '4')
    assert tuple(found) == HOSTS
    for host, (source, *commands) in found.items():
        config = f'configs/featjnd/{host}.py'
        folder = f'/work dir/{host}'
        assert source == Config.fromfile(ROOT / config).load_from
        assert len(commands) == 3 * 2 + 4
        for seed in range(3):
            script, *words = commands[2 * seed]
            assert (script, *words[:2]) == ('tools/dist_train.sh', config, '4')
            args = parsed('train.py', [config, *words[2:]], monkeypatch)
            cfg = checked(config, args)
            assert cfg.randomness.seed == seed
            assert cfg.load_from == source
            assert 4 * cfg.train_dataloader.batch_size == 16
            assert args.work_dir == f'{folder}/seed{seed}'
            assert commands[2 * seed + 1] == [
                'python', 'tools/model_converters/extract_estimator.py',
                config, f'{folder}/seed{seed}/iter_1000.pth',
                f'{folder}/estimator_seed{seed}.pth'
            ]
        curves = []
        for script, tool, config, checkpoint, gpus, *words in commands[6:]:
            assert (script, gpus) == ('tools/dist_curve.sh', '4')
            assert checkpoint == f'{folder}/seed0/iter_1000.pth'
            args = parsed(f'analysis_tools/{tool}.py',
                          [config, checkpoint, *words], monkeypatch)
            checked(config, args)
            assert args.estimators == [
                f'{folder}/estimator_seed{i}.pth' for i in range(args.seeds)]
            curves.append(args)
        learned, valid, once, rates = curves
        assert {'featjnd', 'gaussian', 'static', 'other-image', 'level-gain',
                'permuted'} == set(learned.distortions)
        assert (learned.definition, learned.valid, valid.valid) == (
            'channel', False, True)
        assert learned.nats and learned.draws == 200
        assert once.seeds == 1 and 'fisher' in once.distortions
        assert len(rates.policies) == len(coco.POLICIES)
        assert set(rates.policies) == set(coco.POLICIES)
        assert rates.no_coded and rates.noise_budgets == [0.3, 0.45, 0.6]


def test_other_arguments(coco, capsys, tmp_path):
    found = dry_run(coco, capsys, '--hosts', 'retinanet_r50', '--checkpoints',
                    str(tmp_path), '--draws', '0', '--coded')
    (source, train, *_, rates), = found.values()
    assert source.startswith(f'{tmp_path}/retinanet_r50_fpn_1x_coco_')
    assert f'load_from={source}' in train
    assert '--no-coded' not in rates
    for argv, message in ((['--gpus', '3'], 'does not divide'),
                          ([], 'there is no')):
        with pytest.raises(SystemExit):
            coco.parse_args(['--coco', str(tmp_path), *argv])
        assert message in capsys.readouterr().err


def test_make_runs_it():
    done = subprocess.run(
        ['make', '-n', 'bench-coco', 'COCO=/data/coco', 'GPUS=2'], cwd=ROOT,
        text=True, capture_output=True, check=True)
    assert 'benchmarks/coco.py --coco /data/coco --gpus 2' in done.stdout


# --------------------------------------------------- run, but for the commands
def row(name, value, **fields):
    return dict(
        fields, seed=0, metrics={'coco/bbox_mAP': value, 'kl': 1 - value},
        draws={'coco/bbox_mAP': [value] * 3, 'kl': [1 - value] * 3})


def perturbed(name, value, **fields):
    return row(name, value, distortion=name, definition='channel',
               nrmse=1.0, nrmse_measured=1.0, participation_ratio=1.0,
               valid=False, **fields)


@pytest.fixture
def tiny_coco(coco, tmp_path, monkeypatch):
    """Two pictures, commands that write what they would, and the commands
    that were run."""
    truth = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=4, width=4)
                for i in range(2)],
        annotations=[], categories=[dict(id=1, name='person')])
    for split in ('train', 'val'):
        file = tmp_path / coco.ANNOTATIONS.format(split)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(truth))
    curves = {
        'curve.json': [
            dict(distortion='clean', nrmse=0.0, seed=0,
                 metrics={'coco/bbox_mAP': 0.5},
                 draws={'coco/bbox_mAP': [0.5] * 3}),
            *(perturbed(name, 0.4)
              for name in ('gaussian', 'static', 'featjnd')),
        ],
        'rates.json': [
            dict(policy='clean', metrics={'coco/bbox_mAP': 0.5}),
            dict(policy='one-step', protocol='rate', bits_per_element=1.0,
                 mean_bits=1.0, seed=0, metrics={'coco/bbox_mAP': 0.4}),
        ]
    }
    ran = []

    def run(command, cwd, env, check):
        ran.append(command)
        assert env['PATH'].startswith(str(Path(sys.executable).parent))
        assert (Path(cwd) / command[0]).is_file() or command[0] == 'python'
        if command[0] == 'python':
            Path(command[-1]).touch()
        elif 'train' in command[0]:
            work_dir = Path(command[command.index('--work-dir') + 1])
            work_dir.mkdir(parents=True, exist_ok=True)
            (work_dir / 'iter_1000.pth').touch()
        else:
            name = coco.OUTCOMES[command[1]]
            out = Path(command[command.index('--out') + 1])
            (out / name).write_text(json.dumps(curves[name]))

    monkeypatch.setattr(coco.subprocess, 'run', run)
    monkeypatch.setattr(common, 'RESULTS', tmp_path / 'results')
    return tmp_path, ran


def test_what_is_done_is_skipped_and_published(coco, tiny_coco, capsys):
    folder, ran = tiny_coco
    argv = ['--coco', str(folder), '--work-dir', str(folder / 'work'),
            '--hosts', 'retinanet_r50', '--gpus', '2']
    coco.main(argv)
    assert len(ran) == 10
    jnd, rates = (
        json.loads((folder / f'results/{kind}_coco-retinanet_r50.json'
                    ).read_text()) for kind in ('featjnd', 'quantization'))
    assert jnd['clean'] == {'coco/bbox_mAP': 0.5}
    assert len(jnd['rows']) == 3 * 3 and 'draws' not in jnd['rows'][0]
    assert jnd['test_split'] == 'val2017, all 2 images'
    assert jnd['estimator_draws'] == 16_000 and not jnd['reduced']
    assert 'coco/bbox_mAP' in jnd['comparisons']
    assert rates['reduced']  # nothing was coded
    assert [r['policy'] for r in rates['rows']] == ['uniform']

    coco.main(argv)
    assert len(ran) == 10
    coco.main([*argv, '--draws', '50'])  # other curves of the same estimators
    assert len(ran) == 13
    result = json.loads(
        (folder / 'results/featjnd_coco-retinanet_r50.json').read_text())
    assert result['reduced']


def test_a_command_that_leaves_nothing(coco, tiny_coco, monkeypatch):
    folder, ran = tiny_coco
    monkeypatch.setattr(coco.subprocess, 'run', lambda *args, **kwargs: None)
    with pytest.raises(SystemExit, match='has not written .*iter_1000.pth'):
        coco.main(['--coco', str(folder), '--work-dir', str(folder / 'work')])
