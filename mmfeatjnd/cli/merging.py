"""What the flags of ``tools/train.py`` and of ``tools/test.py`` do alike."""
import argparse
import os.path as osp
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Iterator, Sequence

from mmengine.config import Config

from mmfeatjnd.utils import config_library
from .configs import require_parts
from .options import append_hooks, check_hooks, merge_options


@contextmanager
def merged_options(cfg: Config, args: argparse.Namespace,
                   parts: Sequence[str]) -> Iterator[None]:
    """Merge ``--cfg-options`` where the host does, around the flags, and
    append every ``--hook`` after that.

    Args:
        cfg (Config): The config, edited in place: before the inside of the
            context, in MMPretrain, and with hooks, after it.
        args (argparse.Namespace): The arguments.
        parts (Sequence[str]): Fields that must be there.

    Raises:
        UsageError: If a field is missing, or an option or a hook does not
            fit.
    """
    merged = deepcopy(cfg)
    merge_options(merged, args.cfg_options)
    require_parts(merged, *parts)
    check_hooks(merged, args.hook)
    late = config_library(merged) == 'mmpretrain'
    if not late:
        merge_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)
    yield
    if late:
        merge_options(cfg, args.cfg_options)
    append_hooks(cfg, args.hook)


def set_loaders(cfg: Config, args: argparse.Namespace, names: Sequence[str],
                **extra: Any) -> None:
    """Set what MMPretrain's tools set in data loaders, and what flags ask.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): The arguments.
        names (Sequence[str]): Which of :data:`LOADERS`.
        **extra: Further defaults of MMPretrain.
    """
    for name in names:
        loader = cfg.get(name)
        if not loader:
            continue
        if config_library(cfg) == 'mmpretrain':
            defaults = dict(
                pin_memory=True,
                collate_fn=dict(type='default_collate'),
                **extra)
            for key, value in defaults.items():
                loader.setdefault(key, value)
        if args.no_pin_memory:
            loader['pin_memory'] = False
        if getattr(args, 'no_persistent_workers', False):
            loader['persistent_workers'] = False
