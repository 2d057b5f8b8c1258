"""Process group of the command-line tools."""
import datetime
import gc
import logging
import os
import subprocess
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Union

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from mmfeatjnd.utils import log
from .console import USER_ERRORS, UsageError

RANK_VARIABLE = dict(
    pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


@contextmanager
def distributed(cfg: Config) -> Iterator[None]:
    """Hold the process group that ``cfg.launcher`` asks for.

    The group is made before the Runner, which then makes none. Without an
    accelerator it uses gloo, where MMEngine would call
    ``torch.cuda.set_device`` and fail, and the config is edited so that the
    model can be wrapped on the CPU.

    Args:
        cfg (Config): The config.

    Raises:
        UsageError: If the launcher's variables are missing.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher != 'none':
        variable = RANK_VARIABLE[launcher]
        if variable not in os.environ:
            raise UsageError(
                f'--launcher {launcher} finds no {variable} in the '
                'environment: start with tools/dist_train.sh, dist_test.sh, '
                'dist_curve.sh or the slurm variants')
        env_cfg = cfg.setdefault('env_cfg', {})
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        if get_device() == 'cpu':
            _init_gloo(cfg, launcher)
        else:
            init_dist(launcher, **env_cfg.get('dist_cfg', {}))
    try:
        yield
    except USER_ERRORS:  # on every rank; another error leaves ranks waiting
        _leave_group()
        raise
    _leave_group()


def _leave_group() -> None:
    if torch_dist.is_available() and torch_dist.is_initialized():
        # A model wrapped for DDP keeps the group's threads alive. One that
        # drops a tensor while Python shuts down aborts the process.
        gc.collect()
        torch_dist.destroy_process_group()


def _init_gloo(cfg: Config, launcher: str) -> None:
    env = os.environ
    if launcher == 'slurm':
        env.update(
            RANK=env['SLURM_PROCID'],
            WORLD_SIZE=env['SLURM_NTASKS'],
            LOCAL_RANK=env.get('SLURM_LOCALID', '0'))
        if 'MASTER_ADDR' not in env:
            nodes = subprocess.check_output(
                ['scontrol', 'show', 'hostname', env['SLURM_NODELIST']],
                text=True)
            env['MASTER_ADDR'] = nodes.split()[0]
    elif launcher == 'mpi':
        env.update(
            RANK=env['OMPI_COMM_WORLD_RANK'],
            WORLD_SIZE=env['OMPI_COMM_WORLD_SIZE'],
            LOCAL_RANK=env['OMPI_COMM_WORLD_LOCAL_RANK'])
        env.setdefault('MASTER_ADDR', '127.0.0.1')
    env.setdefault('MASTER_PORT', '29500')

    dist_cfg = cfg.env_cfg.setdefault('dist_cfg', {})
    dist_cfg.update(backend='gloo')
    options: Dict[str, Any] = {}
    if dist_cfg.get('timeout'):
        options['timeout'] = datetime.timedelta(seconds=dist_cfg['timeout'])
    torch_dist.init_process_group('gloo', **options)

    # MMEngine names a CUDA device by default, which DDP refuses on the CPU
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper.setdefault('device_ids', None)
    cfg.model_wrapper_cfg = wrapper
    if replace_sync_bn(cfg.model):
        log('SyncBN does not run on the CPU: BN of each process is used',
             logging.WARNING)


def replace_sync_bn(node: Union[dict, list]) -> int:
    """Replace synchronized batch norm in a config by the plain one.

    Both have the same parameters; the statistics are those of each process.

    Args:
        node (dict | list): Part of a config, edited in place.

    Returns:
        int: Number of replacements.
    """
    count = 0
    if isinstance(node, dict):
        if node.get('type') in ('SyncBN', 'MMSyncBN', 'NaiveSyncBN'):
            node['type'] = 'BN'
            count += 1
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        count += sum(replace_sync_bn(child) for child in node)
    return count
