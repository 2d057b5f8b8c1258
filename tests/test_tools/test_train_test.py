"""tools/train.py and tools/test.py end to end."""
import glob
import json
import os
import os.path as osp
import pickle
import runpy
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

import mmfeatjnd  # noqa: F401
from mmfeatjnd.apis import ConfigError, build_runner
from mmfeatjnd.cli.arguments import parse_test_args
from mmfeatjnd.cli.configs import load_config
from mmfeatjnd.cli.merge_test import merge_test_args
from mmfeatjnd.cli.run_test import run_test

ROOT = osp.abspath(osp.join(osp.dirname(__file__), '../..'))


def run_tool_here(name, *argv):
    """Run a tool in this process, for its exit message."""
    path = osp.join(ROOT, 'tools', name)
    old, sys.argv = sys.argv, [path, *argv]
    try:
        runpy.run_path(path, run_name='__main__')
    finally:
        sys.argv = old


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def test_missing_files_are_told_before_anything_is_built(tmp_path):
    config = osp.join(ROOT, 'configs/hosts/resnet18_1xb128-5e_cifar10.py')
    missing = str(tmp_path / 'epoch_9.pth')
    work_dir = tmp_path / 'work'
    for argv in ([config, missing], [config, 'none']):
        with pytest.raises(SystemExit, match='cannot read the checkpoint'):
            run_tool_here('test.py', *argv, '--work-dir', str(work_dir))
    with pytest.raises(SystemExit, match='load_from=/path/to/epoch_9.pth'):
        run_tool_here('train.py', config, '--work-dir', str(work_dir),
                      '--cfg-options', f'load_from={missing}')
    with pytest.raises(SystemExit, match="config 'no.py' does not exist"):
        run_tool_here('train.py', 'no.py')
    with pytest.raises(SystemExit, match='RANK in the environment'):
        run_tool_here('train.py', config, '--launcher', 'pytorch')
    assert not work_dir.exists()


# --------------------------------------------------------------- end to end
CONFIG = """
_base_ = 'mmpretrain::_base_/default_runtime.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8,
                  base_channels=8, style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64,
              loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(num_classes=2, mean=[127.5] * 3, std=[64.0] * 3)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root={train!r},
                 pipeline=pipeline))
val_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root={test!r},
                 pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
param_scheduler = []
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
randomness = dict(seed=0)
"""


def make_images(root, count, seed):
    rng = np.random.default_rng(seed)
    for label in ('a', 'b'):
        folder = root / label
        folder.mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / f'{i}.png')
    return str(root)


def run_tool(command, cwd, **env):
    env = {
        **os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': ROOT,
        'CUDA_VISIBLE_DEVICES': '',
        'PATH': osp.dirname(sys.executable) + os.pathsep + os.environ['PATH'],
        **env
    }
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        env.pop(name, None)
    done = subprocess.run(
        command, cwd=cwd, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a config and a model trained by tools/train.py."""
    folder = tmp_path_factory.mktemp('tools')
    config = CONFIG.format(
        train=make_images(folder / 'train', 8, 0),
        test=make_images(folder / 'test', 3, 1))  # 6 in 3 or 2 x 2 batches
    (folder / 'small.py').write_text(config)
    run_tool([
        sys.executable, f'{ROOT}/tools/train.py', 'small.py', '--amp',
        '--no-pin-memory'
    ], folder)
    return folder


def test_train_writes_to_the_default_work_dir(trained):
    work_dir = trained / 'work_dirs/small'
    assert (work_dir / 'last_checkpoint').read_text().endswith('iter_2.pth')
    log, = glob.glob(f'{work_dir}/*/vis_data/scalars.json')
    rows = [json.loads(line) for line in open(log)]
    assert 'accuracy/top1' in rows[-1]
    saved = Config.fromfile(work_dir / 'small.py')
    expected = 'mmfeatjnd.CPUAmpOptimWrapper'
    assert saved.optim_wrapper.type == expected
    assert saved.train_dataloader.persistent_workers is False


def test_test_alone_and_in_two_processes(trained):
    checkpoint = 'work_dirs/small/iter_2.pth'
    run_tool([
        sys.executable, f'{ROOT}/tools/test.py', 'small.py', checkpoint,
        '--work-dir', 'alone', '--out', 'out/pred.pkl'
    ], trained)
    with open(trained / 'out/pred.pkl', 'rb') as file:
        predictions = pickle.load(file)
    assert len(predictions) == 6
    assert os.listdir(trained / 'out') == ['pred.pkl']  # no partial file
    right = sum(
        int(p['pred_label']) == int(p['gt_label']) for p in predictions)
    result, = glob.glob(f'{trained}/alone/*/*.json')
    metrics = json.load(open(result))
    assert metrics['accuracy/top1'] == pytest.approx(right / 6 * 100)

    output = run_tool([
        'bash', f'{ROOT}/tools/dist_test.sh', 'small.py', checkpoint, '2',
        '--out', 'out/metrics.json', '--out-item', 'metrics', '--work-dir',
        'two'
    ], trained, PORT=str(free_port()))  # yapf: disable
    assert 'Distributed launcher: pytorch' in output
    assert 'destroy_process_group() was not called' not in output
    shared = json.load(open(trained / 'out/metrics.json'))
    assert shared['accuracy/top1'] == metrics['accuracy/top1']
    saved = Config.fromfile(trained / 'two/small.py')
    assert saved.launcher == 'pytorch'
    assert saved.env_cfg.dist_cfg.backend == 'gloo'


def test_flip_tta_runs(trained, monkeypatch):
    monkeypatch.chdir(trained)
    args = parse_test_args([
        'small.py', 'work_dirs/small/iter_2.pth', '--tta', '--work-dir', 'tta'
    ])
    cfg = merge_test_args(load_config(args.config), args)
    runner = build_runner(cfg)
    module = runner.model.module
    assert type(runner.model).__name__ == 'AverageClsScoreTTA'
    assert module.data_preprocessor.mean.flatten().tolist() == [127.5] * 3
    assert 0 <= run_test(runner, args)['accuracy/top1'] <= 100


# ----------------------------------------------------------- the work dir
def test_resume_goes_on_from_what_is_whole(trained, monkeypatch, tmp_path):
    """The work dir was moved, its newest checkpoint is cut off and the named
    one is gone, as `max_keep_ckpts=1` leaves it after a kill."""
    monkeypatch.chdir(trained)
    work_dir = tmp_path / 'moved'
    shutil.copytree('work_dirs/small', work_dir)
    (work_dir / 'last_checkpoint').write_text('/gone/iter_3.pth')
    whole = (work_dir / 'iter_2.pth').read_bytes()
    (work_dir / 'iter_4.pth').write_bytes(whole[:len(whole) // 2])
    run_tool_here('train.py', 'small.py', '--work-dir', str(work_dir),
                  '--resume', '--cfg-options', 'train_cfg.max_iters=3')
    logs = [open(f).read() for f in glob.glob(f'{work_dir}/*/*.log')]
    assert any('resumed epoch: 0, iter: 2' in log for log in logs)
    assert (work_dir / 'last_checkpoint').read_text() == str(
        work_dir / 'iter_3.pth')


def test_resume_refuses_the_run_of_another_config(trained, monkeypatch):
    monkeypatch.chdir(trained)
    shutil.copy('small.py', 'other.py')
    before = snapshot('work_dirs/small')
    with pytest.raises(SystemExit) as error:
        run_tool_here('train.py', 'other.py', '--work-dir', 'work_dirs/small',
                      '--resume')
    for part in ('error: ', "'small'", "'other'", 'work_dirs/small',
                 'iter_2.pth'):
        assert part in str(error.value)
    assert snapshot('work_dirs/small') == before


def snapshot(folder):
    return {
        name: os.path.getmtime(osp.join(root, name))
        for root, _, names in os.walk(folder)
        for name in names
    }


@pytest.mark.parametrize('checkpoint, flag, reason', [
    ('bare.pth', '--resume', 'not the state of a training'),
    ('gone.pth', '--resume', 'there is no such file'),
    ('host.pth', 'load_from', 'there are no weights in it'),
    ('text.pth', 'load_from', 'there are no weights in it'),
    ('list.pth', '--resume', 'there are no weights in it, but a list'),
    ('cut.pth', '--resume', 'cut.pth'),
])
def test_train_refuses_what_it_cannot_start_from(trained, monkeypatch,
                                                 checkpoint, flag, reason):
    monkeypatch.chdir(trained)
    torch.save(dict(state_dict=dict(w=torch.ones(1))), 'bare.pth')
    torch.save({}, 'host.pth')
    torch.save({'backbone.conv1.weight': 'text'}, 'text.pth')
    torch.save([torch.ones(1)], 'list.pth')
    whole = open('work_dirs/small/iter_2.pth', 'rb').read()
    open('cut.pth', 'wb').write(whole[:len(whole) // 2])
    flags = [flag, checkpoint]
    remedy = rf'--resume /path/to/{checkpoint}'
    if flag == 'load_from':
        flags = ['--cfg-options', f'load_from={checkpoint}']
        remedy = f'--cfg-options load_from=/path/to/{checkpoint}'
    with pytest.raises(SystemExit, match=reason) as error:
        run_tool_here('train.py', 'small.py', '--work-dir', 'refused', *flags)
    assert remedy in str(error.value)
    assert not osp.exists('refused')


def test_no_tool_overwrites_the_users_config(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = '# mine\n' + (trained / 'small.py').read_text()
    (tmp_path / 'small.py').write_text(text)
    run_tool_here('train.py', 'small.py', '--work-dir', '.', '--cfg-options',
                  'train_cfg.max_iters=1')
    assert (tmp_path / 'small.py').read_text() == text
    dump, = glob.glob('*/small.py')
    assert Config.fromfile(dump).train_cfg.max_iters == 1
    run_tool_here('test.py', './small.py', 'iter_1.pth', '--work-dir',
                  str(tmp_path))
    assert (tmp_path / 'small.py').read_text() == text
    # by another name, it is the same file
    (tmp_path / 'link').symlink_to(tmp_path)
    cfg = Config.fromfile(tmp_path / 'link/small.py')
    cfg.work_dir = str(tmp_path)
    build_runner(cfg, training=True)
    assert (tmp_path / 'small.py').read_text() == text


def test_a_test_spares_the_config_of_the_training(trained, monkeypatch):
    monkeypatch.chdir(trained)
    shutil.copytree('work_dirs/small', 'spared')
    dump = open('spared/small.py').read()
    run_tool_here('test.py', 'small.py', 'spared/iter_2.pth', '--work-dir',
                  'spared', '--cfg-options', 'test_dataloader.batch_size=3')
    assert open('spared/small.py').read() == dump
    own, = glob.glob('spared/*/small.py')
    assert Config.fromfile(own).test_dataloader.batch_size == 3
    # another training replaces it
    cfg = Config.fromfile('small.py')
    cfg.merge_from_dict({'work_dir': 'spared', 'train_cfg.max_iters': 7})
    build_runner(cfg, training=True)
    assert Config.fromfile('spared/small.py').train_cfg.max_iters == 7


def test_a_runner_of_the_users(trained, monkeypatch):
    from mmengine.registry import RUNNERS

    class Mine(Runner):
        pass

    monkeypatch.chdir(trained)
    cfg = Config.fromfile('small.py')
    cfg.work_dir = 'mine'
    RUNNERS.register_module(name='Mine', module=Mine)
    try:
        cfg.runner_type = 'Mine'
        runner = build_runner(cfg)
        assert isinstance(runner, Mine)
        # its scope is still there: data sets of the host are found
        assert len(runner.build_dataloader(cfg.test_dataloader)) == 3
    finally:
        RUNNERS.module_dict.pop('Mine')
    cfg.runner_type = 'Yours'
    with pytest.raises(ConfigError, match="runner_type 'Yours'"):
        build_runner(cfg)


@pytest.mark.parametrize('tool, argv, reason', [
    ('train.py', ['--work-dir', 'small.py/w'], 'small.py is no folder'),
    ('train.py', ['--work-dir', 'small.py'], 'it is a file, but a folder'),
    ('train.py', ['--work-dir', '/proc/w'], 'cannot write /proc/w: /proc'),
    ('train.py', ['--cfg-options', 'train_dataloader=None'],
     'has no train_dataloader'),
    ('test.py', ['--out', 'dir.pkl'], 'it is a folder, but a file'),
    ('test.py', ['--out', '/proc/x.pkl'], 'cannot write /proc/x.pkl: /proc'),
    ('test.py', ['--cfg-options', 'test_evaluator=None'],
     'has no test_evaluator'),
])
def test_told_before_the_run(trained, monkeypatch, tool, argv, reason):
    monkeypatch.chdir(trained)
    os.makedirs('dir.pkl', exist_ok=True)
    if '--work-dir' not in argv:
        argv = [*argv, '--work-dir', 'told']
    if tool == 'test.py':
        argv = ['work_dirs/small/iter_2.pth', *argv]
    with pytest.raises(SystemExit, match=f'error: .*{reason}'):
        run_tool_here(tool, 'small.py', *argv)
    assert not glob.glob('told/*/*.json')


def test_an_empty_config(tmp_path):
    (tmp_path / 'empty.py').write_text('')
    config = str(tmp_path / 'empty.py')
    with pytest.raises(SystemExit, match='empty.py has no model, train_data'):
        run_tool_here('train.py', config)
    with pytest.raises(SystemExit, match='empty.py has no model, test_data'):
        run_tool_here('test.py', config, 'a.pth')


# ----------------------------------------------------- the host's library
NEW_STYLE = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, IterTimerHook, LoggerHook
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs
from mmpretrain.engine import VisualizationHook
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    ClsDataPreprocessor, GlobalAveragePooling, ImageClassifier, LinearClsHead,
    ResNet_CIFAR)
from mmpretrain.visualization import UniversalVisualizer
default_scope = None
model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(type=ClsDataPreprocessor, num_classes=2,
                           mean=[127.5] * 3, std=[64.0] * 3),
    backbone=dict(type=ResNet_CIFAR, depth=18, stem_channels=8,
                  base_channels=8, style='pytorch'),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=2, in_channels=64,
              loss=dict(type='mmpretrain.CrossEntropyLoss')))
test_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=CustomDataset, data_root={test!r},
                 pipeline=[dict(type=LoadImageFromFile),
                           dict(type=PackInputs)]))
test_evaluator = dict(type=Accuracy, topk=(1, ))
test_cfg = dict()
visualizer = dict(type=UniversalVisualizer)
default_hooks = dict(visualization=dict(type=VisualizationHook))
"""


def test_a_new_style_config_has_the_flags_of_its_host(trained, monkeypatch):
    monkeypatch.chdir(trained)
    open('new.py', 'w').write(NEW_STYLE.format(test=str(trained / 'test')))
    checkpoint = 'work_dirs/small/iter_2.pth'
    run_tool_here('test.py', 'new.py', checkpoint, '--show-dir', 'shown')
    # the hook names pictures by the image, without its folder
    assert sorted(os.listdir('shown')) == [f'{i}.png_0.png' for i in range(3)]
    run_tool_here('test.py', 'new.py', checkpoint, '--tta', '--work-dir',
                  'new_tta', '--out', 'out/new.pkl')
    with open('out/new.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 6
    cfg = Config.fromfile('new_tta/new.py')
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
    assert cfg.test_dataloader.pin_memory  # as MMPretrain's tool sets it


def test_out_of_several_data_sets(trained, monkeypatch, capfd):
    """Their evaluator asks no metric but one for each data set."""
    monkeypatch.chdir(trained)
    options = [
        "test_evaluator=dict(type='mmdet.MultiDatasetsEvaluator',"
        '_delete_=True,'
        "metrics=[dict(type='Accuracy',topk=(1,)),"
        "dict(type='Accuracy',topk=(1,))],dataset_prefixes=['a','b'])",
        "test_dataloader.dataset=dict(type='mmdet.ConcatDataset',"
        '_delete_=True,datasets=[' + 2 *
        ("dict(type='CustomDataset',data_root=%r,pipeline="
         "[dict(type='LoadImageFromFile'),dict(type='PackInputs')])," %
         str(trained / 'test')) + '])'
    ]
    import mmdet.datasets  # noqa: F401
    import mmdet.evaluation  # noqa: F401
    run_tool_here('test.py', 'small.py', 'work_dirs/small/iter_2.pth',
                  '--work-dir', 'several', '--out', 'out/several.pkl',
                  '--cfg-options', *options)
    with open('out/several.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 12
    assert 'written: out/several.pkl' in ''.join(capfd.readouterr())


def test_nothing_written_is_not_called_written(trained, monkeypatch, capfd):
    from mmengine.evaluator import Evaluator
    from mmengine.registry import EVALUATOR

    class Mute(Evaluator):
        """Hands nothing to its metrics."""

        def process(self, data_samples, data_batch=None):
            pass

        def evaluate(self, size):
            return {}

    monkeypatch.chdir(trained)
    EVALUATOR.register_module(name='Mute', module=Mute)
    try:
        with pytest.raises(SystemExit, match='nothing is written to .*Mute'):
            run_tool_here(
                'test.py', 'small.py', 'work_dirs/small/iter_2.pth',
                '--work-dir', 'mute', '--out', 'out/mute.pkl', '--cfg-options',
                "test_evaluator=dict(_delete_=True,type='Mute',metrics=[])")
    finally:
        EVALUATOR.module_dict.pop('Mute')
    assert 'written: ' not in ''.join(capfd.readouterr())
    assert not osp.exists('out/mute.pkl')
