"""Process group and runner of the command-line tools."""
import datetime
import functools
import gc
import logging
import os
import os.path as osp
import subprocess
from contextlib import contextmanager

import torch.distributed as torch_dist
from mmengine.device import get_device
from mmengine.dist import init_dist, master_only
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from mmfeatjnd.compat import HOST_LIBRARIES, require
from .console import UsageError, check_writable, log
from .library import host_of

RANK_VARIABLE = dict(
    pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


def prepare_host(cfg):
    """Check that the host is installed, and do what its own tools do first.

    Args:
        cfg (Config): The config.

    Raises:
        EnvironmentProblem: If the host library cannot be imported.
    """
    host = host_of(cfg)
    if host in HOST_LIBRARIES:
        require(host)
    if host == 'mmdet':
        from mmdet.utils import setup_cache_size_limit_of_dynamo
        setup_cache_size_limit_of_dynamo()


@contextmanager
def distributed(cfg):
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
                'environment: start with tools/dist_train.sh, dist_test.sh '
                'or their slurm variants')
        env_cfg = cfg.setdefault('env_cfg', {})
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        if get_device() == 'cpu':
            _init_gloo(cfg, launcher)
        else:
            init_dist(launcher, **env_cfg.get('dist_cfg', {}))
    try:
        yield
    except UsageError:  # on every rank; another error leaves ranks waiting
        _leave_group()
        raise
    _leave_group()


def _leave_group():
    if torch_dist.is_available() and torch_dist.is_initialized():
        # A model wrapped for DDP keeps the group's threads alive. One that
        # drops a tensor while Python shuts down aborts the process.
        gc.collect()
        torch_dist.destroy_process_group()


def _init_gloo(cfg, launcher):
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
    options = {}
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


def replace_sync_bn(node):
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


def build_runner(cfg, training=False):
    """Build the runner that a config names.

    It writes the config beside its log, not over another one: the work dir
    may be the folder of the user's own file, and a test or an analysis, which
    edits its config, must not stand in for the training before it.

    Args:
        cfg (Config): The config.
        training (bool): Whether it is to train: only then a config that is in
            the work dir already, from a training before, is replaced.
            Defaults to False.

    Returns:
        Runner: MMEngine's, or that of ``runner_type``, of a subclass.

    Raises:
        UsageError: If the work dir cannot be written.
    """
    check_writable(cfg.work_dir, folder=True)
    kind = cfg.get('runner_type', Runner)
    if isinstance(kind, str):
        scope = cfg.get('default_scope')
        with RUNNERS.switch_scope_and_registry(scope) as registry:
            found = registry.get(kind)
        if found is None:
            raise UsageError(f'runner_type {kind!r} is not registered')
        kind = found
    return _careful(kind, training).from_cfg(cfg)


@functools.lru_cache(maxsize=None)
def _careful(runner_class, training):
    """A Runner that spares the configs in its work dir."""

    @master_only
    def dump_config(self):
        """Dump the config to the work dir or, where one must stay, beside
        the log."""
        given = self.cfg.filename
        target = osp.join(self.work_dir, osp.basename(given or ''))
        if given is None or not osp.exists(target) or (
                training and not osp.samefile(target, given)):
            super(careful, self).dump_config()
        else:
            self.cfg.dump(osp.join(self.log_dir, osp.basename(given)))

    careful = type(runner_class.__name__, (runner_class, ), {
        '__module__': runner_class.__module__,
        '__doc__': runner_class.__doc__,
        'dump_config': dump_config
    })
    return careful
