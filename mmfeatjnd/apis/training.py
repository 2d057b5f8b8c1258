"""Train what a config describes, once or anew."""
from pathlib import Path
from typing import Optional, Union

from mmengine.config import Config

from .building import build_runner
from .work_dirs import (
    WorkDirError,
    check_run,
    claimed,
    latest_checkpoint,
    moved,
    named_checkpoint,
    resolve_resume,
)


def train(cfg: Config) -> None:
    """Train a config, and no other one in its ``work_dir`` meanwhile.

    Args:
        cfg (Config): The config, with ``work_dir``.

    Raises:
        WorkDirError: Another process trains there.

    Example:
        >>> train(cfg)
        >>> Path(latest_checkpoint(cfg.work_dir)).name
        'iter_1.pth'
    """
    with claimed(cfg.work_dir):
        build_runner(cfg, training=True).train()


def trained_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The last checkpoint of a run of :func:`train_once` that finished.

    Args:
        work_dir (str | Path): The run's, also moved or copied since.

    Returns:
        str, optional: The path. None of a run that did not finish, or whose
        last checkpoint is gone.

    Example:
        >>> trained_checkpoint('work_dirs/nothing') is None
        True
    """
    done = Path(work_dir) / 'done'
    if not done.is_file():
        return None
    name = done.read_text().strip()
    path = moved(work_dir, name) if name else named_checkpoint(work_dir)
    return path if path and Path(path).exists() else None


def train_once(cfg: Config) -> str:
    """Train a config unless its ``work_dir`` holds a finished run.

    An interrupted run is resumed. A process that trains there already is
    waited for.

    Args:
        cfg (Config): The config, with ``work_dir``.

    Returns:
        str: The last checkpoint.

    Raises:
        WorkDirError: The ``work_dir`` holds a run of another config, or the
            run leaves no checkpoint.

    Example:
        >>> path = train_once(cfg)
        >>> path == trained_checkpoint(cfg.work_dir)
        True
        >>> path == train_once(cfg)  # at once
        True
    """
    with claimed(cfg.work_dir, wait=True):
        checkpoint = trained_checkpoint(cfg.work_dir)
        if checkpoint is not None:
            check_run(cfg, checkpoint)
            return checkpoint
        resolve_resume(cfg, 'auto')
        build_runner(cfg, training=True).train()
        checkpoint = latest_checkpoint(cfg.work_dir)
        if checkpoint is None:
            raise WorkDirError(f'the training in {cfg.work_dir} left no '
                               'checkpoint: default_hooks.checkpoint of '
                               f'{cfg.filename} must write one')
        (Path(cfg.work_dir) / 'done').write_text(checkpoint)
        return checkpoint
