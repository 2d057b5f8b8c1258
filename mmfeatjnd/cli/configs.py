"""The config that a tool was given, read and checked before any work."""
import argparse
import os.path as osp
from pathlib import Path
from typing import List, Sequence

from mmengine.config import Config

from mmfeatjnd import compat
from mmfeatjnd.apis.add_featjnd import add_featjnd
from mmfeatjnd.apis.checkpoints import read_weights
from mmfeatjnd.apis.zoo import find_model
from mmfeatjnd.utils import ConfigError, check_writable, load_safely
from .console import UsageError
from .options import drop_idle_persistence, merge_options


def load_config(path: str) -> Config:
    """Read a config file.

    Args:
        path (str): Path of the file, or a name of :mod:`mmfeatjnd.apis.zoo`.

    Returns:
        Config: The config.

    Raises:
        UsageError: If there is no such file, or it cannot be read.
    """
    if not osp.isfile(path):
        try:
            path = str(find_model(path).config)
        except ConfigError as error:
            raise UsageError(f'the config {path!r} does not exist, and '
                             f'{error}') from error
    try:
        return Config.fromfile(path)
    except compat.EnvironmentProblem:
        raise
    except Exception as error:  # a config is a program
        raise UsageError(f'cannot read the config {path}\n  '
                         f'{type(error).__name__}: {error}') from error


def open_config(args: argparse.Namespace, merge: bool = True) -> Config:
    """Check the environment and read the config that a tool was given.

    Args:
        args (argparse.Namespace): Arguments with ``config`` and, where the
            tool has them, ``featjnd`` and ``cfg_options``.
        merge (bool): Whether to merge ``--cfg-options``. Defaults to True.

    Returns:
        Config: The config.

    Raises:
        UsageError: If it cannot be read, or the options do not fit it.
        ConfigError: If FeatJND cannot be put on its host.
    """
    compat.check_environment()
    load_safely()
    cfg = read_given(args)
    if merge:
        merge_options(cfg, getattr(args, 'cfg_options', None))
        drop_idle_persistence(cfg)
    return cfg


def read_given(args: argparse.Namespace) -> Config:
    """The config of a tool, with FeatJND where ``--featjnd`` asks for it.

    Args:
        args (argparse.Namespace): Arguments with ``config`` and maybe
            ``featjnd``.

    Returns:
        Config: The config.
    """
    cfg = load_config(args.config)
    featjnd = getattr(args, 'featjnd', None)
    if featjnd is None:
        return cfg
    require_parts(cfg, 'model')
    cfg = add_featjnd(cfg, **featjnd)
    # not where the host was trained
    cfg.work_dir = f'./work_dirs/featjnd_{Path(args.config).stem}'
    return cfg


def open_test(args: argparse.Namespace, checkpoints: Sequence[str]) -> Config:
    """:func:`open_config`, for a tool that tests checkpoints.

    Args:
        args (argparse.Namespace): Arguments with ``config`` and
            ``cfg_options``.
        checkpoints (Sequence[str]): The files.

    Returns:
        Config: The config.

    Raises:
        UsageError: If the config cannot be tested.
        CheckpointError: If a file holds no weights.
    """
    cfg = open_config(args)
    require_parts(cfg, 'model', 'test_dataloader', 'test_evaluator')
    for checkpoint in checkpoints:
        read_weights(checkpoint)
    return cfg


def open_curve(args: argparse.Namespace) -> Config:
    """Check all arguments of :func:`curve_parser`, and read the config.

    Args:
        args (argparse.Namespace): The arguments.

    Returns:
        Config: The config, with ``work_dir`` and ``launcher``; for
        :func:`mmfeatjnd.cli.launch.distributed`.

    Raises:
        UsageError: If something stands in the way of the curve.
    """
    cfg = open_test(args, [args.checkpoint])
    if args.estimators and len(args.estimators) != args.seeds:
        raise UsageError(f'{len(args.estimators)} --estimators for --seeds '
                         f'{args.seeds}: give one for each')
    set_out_folder(cfg, args)
    cfg.launcher = args.launcher
    return cfg


def set_out_folder(cfg: Config, args: argparse.Namespace) -> None:
    """Set the work dir of a tool whose results go to a folder.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): Arguments with ``out`` and ``work_dir``.

    Raises:
        WriteError: If ``out`` cannot be written.
    """
    check_writable(args.out, folder=True)
    cfg.work_dir = args.work_dir or str(args.out)


def open_training(args: argparse.Namespace) -> Config:
    """Open the config of a tool that looks at its training pictures; what
    these come to goes to a file, so the work dir holds the log alone.

    Args:
        args (argparse.Namespace): Arguments with ``config``,
            ``cfg_options``, ``checkpoint`` and ``work_dir``.

    Returns:
        Config: The config, with ``work_dir``: the argument, or the config's,
        or ./work_dirs/<config name>.

    Raises:
        UsageError: See :func:`open_test`; or it has no training pictures.
    """
    cfg = open_test(args, [args.checkpoint])
    require_parts(cfg, 'train_dataloader')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(
        Path('work_dirs', Path(args.config).stem))
    return cfg


def require_parts(cfg: Config, *names: str) -> None:
    """Raise a :class:`UsageError` unless a config has these fields.

    Args:
        cfg (Config): The config.
        *names (str): Names of fields that must be there and not None.
    """
    missing = [name for name in names if cfg.get(name) is None]
    if missing:
        raise UsageError(f'the config {cfg.filename} has no '
                         f'{", ".join(missing)}')


def short_names(checkpoints: Sequence[str]) -> List[str]:
    """Names to tell checkpoints apart in a table or a figure.

    Args:
        checkpoints (Sequence[str]): The files.

    Returns:
        list[str]: The names without suffix or, where these are not unique,
        with the folder or as they are.

    Raises:
        UsageError: A checkpoint is there twice.
    """
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    for name in (lambda p: p.stem, lambda p: f'{p.parent.name}/{p.stem}', str):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f'a checkpoint is given twice: {", ".join(names)}')
