"""Process groups with and without an accelerator."""
import os
import socket

import pytest
import torch

from mmfeatjnd.cli import launch
from mmfeatjnd.cli.console import UsageError


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def test_replace_sync_bn(train_cfg):
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
def test_launchers_without_an_accelerator(
        monkeypatch, launcher, names, train_cfg):
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
