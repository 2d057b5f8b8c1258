"""What the flags of ``tools/train.py`` do to a config.

The functions here edit a :class:`mmengine.config.Config` the way the library
of its model would.
"""
import argparse

from mmengine.config import Config

from mmfeatjnd.apis.mixed_precision import enable_amp
from mmfeatjnd.apis.work_dirs import resolve_resume
from .console import UsageError
from .merging import merged_options, set_loaders
from .options import LOADERS, drop_idle_persistence


def merge_train_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Edit a config as the flags of ``tools/train.py`` ask.

    As in the hosts, ``--cfg-options`` override the other flags in MMPretrain
    and are overridden by them elsewhere. ``--resume`` always comes last: with
    ``load_from`` overridden after it, MMEngine would resume training from the
    host's checkpoint.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): Arguments of :func:`parse_train_args`.

    Returns:
        Config: The same config.

    Raises:
        UsageError | ConfigError: If the config cannot do what a flag asks.
        WorkDirError: If the work dir holds another run.
    """
    parts = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    with merged_options(cfg, args, parts):
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if args.amp:
            enable_amp(cfg)
        if args.auto_scale_lr:
            enable_auto_scale_lr(cfg)
        set_loaders(cfg, args, LOADERS, persistent_workers=True)
    drop_idle_persistence(cfg)
    resolve_resume(cfg, args.resume)
    return cfg


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the batch size.

    Args:
        cfg (Config): The config, edited in place.

    Raises:
        UsageError: If it has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UsageError(
            '--auto-scale-lr needs the batch size that the learning rate was '
            'chosen for: add `auto_scale_lr=dict(base_batch_size=...)` to the '
            'config')
    cfg.auto_scale_lr.enable = True
