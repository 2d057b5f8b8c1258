"""The flags of tools/train.py against those of the hosts' own."""
import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmfeatjnd.apis import ConfigError, enable_amp
from mmfeatjnd.cli.arguments import parse_test_args
from mmfeatjnd.cli.configs import load_config
from mmfeatjnd.cli.console import UsageError
from mmfeatjnd.cli.merge_test import merge_test_args
from mmfeatjnd.compat import HOST_LIBRARIES


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
def test_train_merges_like_the_host(
        monkeypatch, tmp_path, host, argv, train_cfg, host_cfg):
    monkeypatch.chdir(tmp_path)
    theirs = host_cfg(host, 'train', argv)
    ours = train_cfg(host, *argv)
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.parametrize('host', HOST_LIBRARIES)
def test_amp_on_the_device_there_is(host, train_cfg):
    wrapper = train_cfg(host, '--amp').optim_wrapper
    if torch.cuda.is_available():
        assert wrapper.type == 'AmpOptimWrapper'
        assert wrapper.loss_scale == 'dynamic'
    else:
        assert wrapper.type == 'mmfeatjnd.CPUAmpOptimWrapper'
        assert 'loss_scale' not in wrapper


def test_amp_leaves_other_wrappers_alone(train_cfg):
    with pytest.raises(ConfigError, match='of type ApexOptimWrapper'):
        train_cfg('mmdet', '--amp', '--cfg-options',
                  'optim_wrapper.type=ApexOptimWrapper')


@pytest.mark.skipif(torch.cuda.is_available(), reason='the CPU is meant')
def test_amp_config_runs_on_the_cpu():
    wrapper = ConfigDict(type='AmpOptimWrapper', loss_scale=512., dtype='fp16')
    cfg = Config(dict(optim_wrapper=wrapper))
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='mmfeatjnd.CPUAmpOptimWrapper')


def test_auto_scale_lr_needs_a_base(train_cfg):
    with pytest.raises(UsageError, match='base_batch_size'):
        train_cfg('mmseg', '--auto-scale-lr')


def test_no_workers_no_persistent_workers(train_cfg):
    option = 'train_dataloader.num_workers=0'
    for host in HOST_LIBRARIES:
        cfg = train_cfg(host, '--cfg-options', option)
        assert cfg.train_dataloader.persistent_workers is False
        assert cfg.val_dataloader.persistent_workers is True


def test_resume_without_a_run_keeps_load_from(tmp_path, train_cfg):
    flags = [
        '--work-dir', str(tmp_path), '--resume', '--cfg-options',
        'load_from=host.pth'
    ]
    for host in HOST_LIBRARIES:
        cfg = train_cfg(host, *flags)
        assert (cfg.resume, cfg.load_from) == (False, 'host.pth')
    (tmp_path / 'last_checkpoint').write_text('iter_4.pth')
    for host in HOST_LIBRARIES:  # named, but not there
        assert train_cfg(host, *flags).load_from == 'host.pth'
    torch.save(dict(meta={}), tmp_path / 'iter_4.pth')
    # in MMPretrain, options come after the other flags
    for host in HOST_LIBRARIES:
        cfg = train_cfg(host, *flags)
        assert cfg.resume and cfg.load_from == str(tmp_path / 'iter_4.pth')


@pytest.mark.parametrize('host', HOST_LIBRARIES)
def test_hooks_come_after_the_options(host, stock, train_cfg):
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
