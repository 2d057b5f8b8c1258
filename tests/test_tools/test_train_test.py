"""tools/train.py and tools/test.py against the hosts' own, and end to end."""
import argparse
import functools
import glob
import http.server
import importlib.util
import json
import os
import os.path as osp
import pickle
import runpy
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from PIL import Image

import mmfeatjnd  # noqa: F401
from mmfeatjnd.apis import (
    CheckpointError,
    ConfigError,
    build_runner,
    enable_amp,
)
from mmfeatjnd.cli import launch
from mmfeatjnd.cli.arguments import parse_test_args, parse_train_args
from mmfeatjnd.cli.checkpoints import drop_pretrained, ensure_checkpoint
from mmfeatjnd.cli.configs import load_config
from mmfeatjnd.cli.console import UsageError
from mmfeatjnd.cli.merge_test import (
    enable_tta,
    enable_visualization,
    merge_test_args,
)
from mmfeatjnd.cli.merge_train import merge_train_args
from mmfeatjnd.cli.run_test import run_test

ROOT = osp.abspath(osp.join(osp.dirname(__file__), '../..'))
STOCK = dict(
    mmdet='faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    mmpretrain='resnet/resnet18_8xb16_cifar10.py',
    mmseg='pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')


@pytest.fixture(autouse=True)
def _runs_apart():
    """MMEngine names what a run logs to by config and second: two runs of one
    process within a second would share it."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()


def mim(host, path):
    spec = importlib.util.find_spec(host)
    return osp.join(spec.submodule_search_locations[0], '.mim', path)


def stock(host):
    return mim(host, f'configs/{STOCK[host]}')


def train_cfg(host, *flags):
    args = parse_train_args([stock(host), *flags])
    return merge_train_args(load_config(args.config), args)


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


# --------------------------------------------------------- the hosts' tools
class Captured(Exception):
    pass


def host_cfg(monkeypatch, host, tool, argv):
    """Return the config that a host's own tool gives to the Runner."""

    def capture(cls, cfg):
        raise Captured(cfg)

    monkeypatch.setattr(Runner, 'from_cfg', classmethod(capture))
    path = mim(host, f'tools/{tool}.py')
    monkeypatch.setattr(sys, 'argv', [path, stock(host), *argv])
    with pytest.raises(Captured) as captured:
        runpy.run_path(path, run_name='__main__')
    return captured.value.args[0]


@pytest.mark.parametrize('host, argv', [
    ('mmdet', []),
    ('mmdet', ['--auto-scale-lr', '--work-dir', 'a', '--resume', 'x.pth']),
    ('mmdet', ['--work-dir', 'a', '--cfg-options', 'work_dir=b']),
    ('mmpretrain', []),
    ('mmpretrain', ['--no-validate', '--auto-scale-lr', '--no-pin-memory',
                    '--no-persistent-workers', '--resume', 'x.pth']),
    ('mmpretrain', ['--work-dir', 'a', '--cfg-options', 'work_dir=b']),
    ('mmseg', []),
    ('mmseg', ['--work-dir', 'a', '--cfg-options', 'model.neck=None']),
])  # yapf: disable
def test_train_merges_like_the_host(monkeypatch, tmp_path, host, argv):
    monkeypatch.chdir(tmp_path)
    theirs = host_cfg(monkeypatch, host, 'train', argv)
    ours = train_cfg(host, *argv)
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('host, argv', [
    ('mmdet', ['--work-dir', 'a', '--out', 'p.pkl']),
    ('mmdet', ['--show', '--wait-time', '0.5', '--show-dir', 'd', '--tta']),
    ('mmpretrain', ['--no-pin-memory', '--amp', '--out', 'p.pkl']),
    ('mmpretrain', ['--show-dir', 'd', '--interval', '3', '--tta']),
    ('mmseg', ['--out', 'preds', '--show-dir', 'd']),
    ('mmseg', ['--show', '--wait-time', '0.5', '--tta']),
])  # yapf: disable
def test_test_merges_like_the_host(monkeypatch, tmp_path, host, argv):
    monkeypatch.chdir(tmp_path)
    argv = ['epoch.pth', *argv]
    theirs = host_cfg(monkeypatch, host, 'test', argv).to_dict()
    args = parse_test_args([stock(host), *argv])
    ours = merge_test_args(load_config(args.config), args)
    ours = ours.to_dict()
    for cfg in (ours, theirs):
        cfg.pop('tta_model', None)  # mmseg's tool also writes into this one
    assert ours == theirs


def test_tta_keeps_the_models_own_preprocessor(tmp_path):
    args = parse_test_args([
        stock('mmseg'), 'epoch.pth', '--tta', '--cfg-options',
        'model.data_preprocessor.size="(64,64)"'
    ])
    cfg = merge_test_args(load_config(args.config), args)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.data_preprocessor.size == (64, 64)
    # what BaseTTAModel gives to the model in place of the top-level one
    assert cfg.model.data_preprocessor.size == (64, 64)


# -------------------------------------------------------------- train flags
def test_local_rank_has_two_spellings(monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    assert parse_train_args(['c.py', '--local-rank', '3']).local_rank == 3
    assert os.environ['LOCAL_RANK'] == '3'
    assert parse_test_args(['c', 'd', '--local_rank=2']).local_rank == 2
    assert os.environ['LOCAL_RANK'] == '3'  # the launcher's word counts


def test_resume_takes_a_path_or_none():
    assert parse_train_args(['c.py']).resume is None
    assert parse_train_args(['c.py', '--resume']).resume == 'auto'
    assert parse_train_args(['c.py', '--resume', 'a']).resume == 'a'


def test_out_item_needs_out(capsys):
    with pytest.raises(SystemExit):
        parse_test_args(['c.py', 'd.pth', '--out-item', 'metrics'])
    assert 'give --out as well' in capsys.readouterr().err


@pytest.mark.parametrize('host', STOCK)
def test_amp_on_the_device_there_is(host):
    wrapper = train_cfg(host, '--amp').optim_wrapper
    if torch.cuda.is_available():
        assert wrapper.type == 'AmpOptimWrapper'
        assert wrapper.loss_scale == 'dynamic'
    else:
        assert wrapper.type == 'mmfeatjnd.CPUAmpOptimWrapper'
        assert 'loss_scale' not in wrapper


def test_amp_leaves_other_wrappers_alone():
    with pytest.raises(ConfigError, match='of type ApexOptimWrapper'):
        train_cfg('mmdet', '--amp', '--cfg-options',
                  'optim_wrapper.type=ApexOptimWrapper')


@pytest.mark.skipif(torch.cuda.is_available(), reason='the CPU is meant')
def test_amp_config_runs_on_the_cpu():
    wrapper = ConfigDict(type='AmpOptimWrapper', loss_scale=512., dtype='fp16')
    cfg = Config(dict(optim_wrapper=wrapper))
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='mmfeatjnd.CPUAmpOptimWrapper')


def test_auto_scale_lr_needs_a_base():
    with pytest.raises(UsageError, match='base_batch_size'):
        train_cfg('mmseg', '--auto-scale-lr')


def test_no_workers_no_persistent_workers():
    option = 'train_dataloader.num_workers=0'
    for host in STOCK:
        cfg = train_cfg(host, '--cfg-options', option)
        assert cfg.train_dataloader.persistent_workers is False
        assert cfg.val_dataloader.persistent_workers is True


def test_resume_without_a_run_keeps_load_from(tmp_path):
    flags = [
        '--work-dir', str(tmp_path), '--resume', '--cfg-options',
        'load_from=host.pth'
    ]
    for host in STOCK:
        cfg = train_cfg(host, *flags)
        assert (cfg.resume, cfg.load_from) == (False, 'host.pth')
    (tmp_path / 'last_checkpoint').write_text('iter_4.pth')
    for host in STOCK:  # named, but not there
        assert train_cfg(host, *flags).load_from == 'host.pth'
    torch.save(dict(meta={}), tmp_path / 'iter_4.pth')
    for host in STOCK:  # in MMPretrain, options come after the other flags
        cfg = train_cfg(host, *flags)
        assert cfg.resume and cfg.load_from == str(tmp_path / 'iter_4.pth')


def test_replace_sync_bn():
    model = train_cfg('mmseg').model
    assert launch.replace_sync_bn(model) == 3  # backbone and two heads
    assert model.backbone.norm_cfg.type == 'BN'
    assert launch.replace_sync_bn(model) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason='the CPU is meant')
@pytest.mark.parametrize('launcher, names', [
    ('pytorch', ['RANK', 'WORLD_SIZE', 'LOCAL_RANK']),
    ('slurm', ['SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID']),
    ('mpi', ['OMPI_COMM_WORLD_' + n for n in ('RANK', 'SIZE', 'LOCAL_RANK')]),
])
def test_launchers_without_an_accelerator(monkeypatch, launcher, names):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in zip(names, '010'):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(free_port()))
    cfg = train_cfg('mmseg', '--launcher', launcher, '--cfg-options',
                    'find_unused_parameters=True')
    with launch.distributed(cfg):
        assert torch.distributed.get_backend() == 'gloo'
        assert torch.distributed.get_world_size() == 1
    assert not torch.distributed.is_initialized()
    with pytest.raises(UsageError):
        with launch.distributed(cfg):
            raise UsageError('on every rank')
    assert not torch.distributed.is_initialized()
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    wrapper = cfg.model_wrapper_cfg
    assert wrapper.device_ids is None and wrapper.find_unused_parameters
    assert cfg.model.decode_head.norm_cfg.type == 'BN'
    assert os.environ['LOCAL_RANK'] == '0'


@pytest.mark.parametrize('host', STOCK)
def test_hooks_come_after_the_options(host):
    """Also in MMPretrain, where options come after the other flags."""
    flags = ['--hook', "dict(type='EMAHook',momentum=0.1)", '--cfg-options',
             "custom_hooks=[dict(type='SyncBuffersHook')]"]
    cfg = train_cfg(host, *flags)
    assert [h.type for h in cfg.custom_hooks] == ['SyncBuffersHook', 'EMAHook']
    args = parse_test_args([stock(host), 'c.pth', *flags])
    cfg = merge_test_args(load_config(args.config), args)
    assert [h.type for h in cfg.custom_hooks] == ['SyncBuffersHook', 'EMAHook']
    with pytest.raises(UsageError, match="no hook is registered as 'Emma'"):
        train_cfg(host, '--hook', "dict(type='Emma')")


# --------------------------------------------------------------- test flags
@pytest.mark.parametrize('host, out, flags', [
    ('mmdet', 'p.json', []),
    ('mmpretrain', 'p.json', ['--out-item', 'pred']),
    ('mmseg', 'p.txt', ['--out-item', 'metrics']),
])
def test_out_suffix(host, out, flags):
    args = parse_test_args([stock(host), 'c.pth', '--out', out, *flags])
    with pytest.raises(UsageError, match=out):
        merge_test_args(load_config(args.config), args)


def test_tta_of_a_detector_in_no_scope():
    """Names that only MMDetection knows are written with it."""
    from mmdet.models import FasterRCNN
    args = parse_test_args([stock('mmdet'), 'epoch.pth', '--tta'])
    for scope, prefix in ((None, 'mmdet.'), ('mmdet', '')):
        cfg = load_config(args.config)
        cfg.default_scope = scope
        cfg.model.type = FasterRCNN
        merge_test_args(cfg, args)
        assert cfg.model.type == f'{prefix}DetTTAModel'
        flips = cfg.test_dataloader.dataset.pipeline[-1].transforms[0]
        assert [flip.type for flip in flips] == 2 * [f'{prefix}RandomFlip']


def test_show_needs_a_host():
    cfg = Config(
        dict(
            model=dict(type='Mine'),
            default_hooks=dict(visualization=dict(type='X'))))
    args = argparse.Namespace(show=True, show_dir=None, wait_time=2)
    with pytest.raises(UsageError, match='which library its model'):
        enable_visualization(cfg, args)


def test_show_needs_the_hook():
    args = argparse.Namespace(show=True, show_dir=None, wait_time=2)
    with pytest.raises(UsageError, match='visualization hook'):
        enable_visualization(Config(dict(default_hooks={})), args)


def test_tta_without_a_default():
    cfg = Config(
        dict(
            default_scope='mmdet',  # the model decides
            model=dict(type='mmseg.EncoderDecoder'),
            tta_model=dict(type='x')))
    with pytest.raises(UsageError, match='add tta_pipeline to'):
        enable_tta(cfg)


def test_missing_files_are_told_before_anything_is_built(tmp_path):
    config = stock('mmpretrain')
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


# -------------------------------------------------------------- checkpoints
@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of a folder, and an empty cache of downloads."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    web.folder, web.url = folder, f'http://127.0.0.1:{web.server_port}'
    yield web
    web.shutdown()
    web.server_close()
    thread.join()


def test_checkpoint_of_a_url(server):
    weights = {'module.backbone.w': torch.ones(2), 'head.w': torch.ones(1)}
    torch.save(dict(state_dict=weights), server.folder / 'net-1234.pth')
    cfg = Config(dict(load_from=f'{server.url}/net-1234.pth'))
    names = {'backbone.w', 'head.w'}
    assert ensure_checkpoint(cfg) == names
    (server.folder / 'net-1234.pth').unlink()
    assert ensure_checkpoint(cfg) == names  # from the cache


def test_checkpoint_that_cannot_be_had(server):
    url = f'{server.url}/sub/gone-5678.pth?x=1'
    with pytest.raises(CheckpointError) as error:
        ensure_checkpoint(Config(dict(load_from=url)))
    message = str(error.value)
    assert url in message and 'HTTPError' in message and '404' in message
    assert '--cfg-options load_from=/path/to/gone-5678.pth' in message
    assert 'damaged' not in message

    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError, match='URLError'):
        ensure_checkpoint(Config(dict(load_from=url)))


def test_damaged_download(server):
    (server.folder / 'net.pth').write_bytes(b'<html>moved</html>')
    cfg = Config(dict(load_from=f'{server.url}/net.pth'))
    with pytest.raises(CheckpointError, match='damaged: delete it'):
        ensure_checkpoint(cfg)


def test_an_estimator_file_is_no_checkpoint(tmp_path):
    path = str(tmp_path / 'jnd.pth')
    torch.save(dict(format='mmfeatjnd.estimator', state_dict={}), path)
    with pytest.raises(CheckpointError, match='without its host'):
        ensure_checkpoint(Config(dict(load_from=path)))


def test_nothing_to_load():
    assert ensure_checkpoint(Config(dict(load_from=None))) is None
    cfg = train_cfg('mmdet')
    assert drop_pretrained(cfg, None) == []
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'


def test_drop_pretrained_of_stock_configs():
    names = {'backbone.conv1.weight', 'rpn_head.conv.weight'}
    cfg = train_cfg('mmdet')
    assert drop_pretrained(cfg, names) == ['model.backbone.init_cfg']
    assert 'init_cfg' not in cfg.model.backbone
    cfg = train_cfg('mmseg')
    assert drop_pretrained(cfg, names) == ['model.pretrained']
    assert cfg.model.pretrained is None


def test_drop_pretrained_only_where_the_checkpoint_has_weights():
    pretrained = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    kaiming = dict(type='Kaiming', layer='Conv2d')
    cfg = Config(
        dict(
            model=dict(
                init_cfg=dict(pretrained),
                backbone=dict(
                    type='X',
                    init_cfg=[dict(kaiming), dict(pretrained)],
                    pretrained=True),
                neck=dict(
                    neck=[dict(init_cfg=dict(kaiming))],
                    estimator=dict(init_cfg=dict(pretrained))),
                heads=[dict(init_cfg=dict(pretrained))])))
    names = {'backbone.conv1.weight', 'neck.neck.0.w', 'heads.0.fc.weight'}
    assert drop_pretrained(cfg, names) == [
        'model.init_cfg', 'model.backbone.init_cfg', 'model.heads.0.init_cfg'
    ]
    model = cfg.model
    assert model.backbone == dict(
        type='X', init_cfg=[kaiming], pretrained=True)
    assert model.neck.neck[0].init_cfg == kaiming
    # the host's checkpoint does not hold the estimator
    assert model.neck.estimator.init_cfg == pretrained
    # a checkpoint of an estimator alone does not hold the host
    cfg = Config(dict(model=dict(init_cfg=pretrained, backbone=dict())))
    assert not drop_pretrained(cfg, {'neck.estimator.w'})


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


def test_no_empty_resume(capsys):
    with pytest.raises(SystemExit):
        parse_train_args(['c.py', '--resume', ''])
    assert 'argument --resume: a path is needed' in capsys.readouterr().err


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
