"""Build what a config describes: its model, or its Runner."""
import functools
import os.path as osp
from typing import Type

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmfeatjnd.compat import HOST_LIBRARIES, require
from mmfeatjnd.models.hosts import build_host
from mmfeatjnd.utils import (
    ConfigError,
    check_writable,
    config_library,
    load_safely,
)
from .host_hooks import drop_misfits


def prepare_host(cfg: Config) -> None:
    """Check that the host is installed, and do what its own tools do first.

    Args:
        cfg (Config): The config.

    Raises:
        EnvironmentProblem: If the host library cannot be imported.
    """
    host = config_library(cfg)
    if host in HOST_LIBRARIES:
        require(host)
    if host == 'mmdet':
        from mmdet.utils import setup_cache_size_limit_of_dynamo
        setup_cache_size_limit_of_dynamo()


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, as a Runner would, without a Runner.

    Args:
        cfg (Config): A config of any host library.

    Returns:
        nn.Module: The model, on the CPU, its weights not yet loaded.

    Example:
        >>> model = build_model(cfg)
        >>> type(model).__name__, type(model).__mro__[2].__name__
        ('FeatJNDImageClassifier', 'ImageClassifier')
    """
    load_safely()
    init_default_scope(cfg.get('default_scope') or config_library(cfg))
    return build_host(cfg)


def build_runner(cfg: Config, training: bool = False) -> Runner:
    """Build the runner that a config names.

    It writes the config beside its log, not over another one: the work dir
    may be the folder of the user's own file, and a test or an analysis, which
    edits its config, must not stand in for the training before it.

    Args:
        cfg (Config): The config.
        training (bool): Whether it is to train: only then a config that is in
            the work dir already, from a training before, is replaced, and
            hooks of the host that do not go with it are switched off.
            Defaults to False.

    Returns:
        Runner: MMEngine's, or that of ``runner_type``, of a subclass.

    Raises:
        WriteError: If the work dir cannot be written.
        ConfigError: If ``runner_type`` is not registered.

    Example:
        >>> runner = build_runner(cfg)
        >>> type(runner.model).__name__
        'FeatJNDImageClassifier'
    """
    load_safely()
    check_writable(cfg.work_dir, folder=True)
    if training:
        drop_misfits(cfg)
    kind = cfg.get('runner_type', Runner)
    if isinstance(kind, str):
        scope = cfg.get('default_scope')
        with RUNNERS.switch_scope_and_registry(scope) as registry:
            found = registry.get(kind)
        if found is None:
            raise ConfigError(f'runner_type {kind!r} is not registered')
        kind = found
    return _careful(kind, training).from_cfg(cfg)


@functools.lru_cache(maxsize=None)
def _careful(runner_class: Type[Runner], training: bool) -> Type[Runner]:
    """A Runner that spares the configs in its work dir."""

    @master_only
    def dump_config(self: Runner) -> None:
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
