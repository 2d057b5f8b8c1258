"""What a work dir holds: whose run it is, and how far it got."""
import ast
import fcntl
import logging
import os
import os.path as osp
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Optional, Union

from mmengine.config import Config
from mmengine.utils import mkdir_or_exist

from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.utils import check_writable, literal, log, on_first_rank
from .checkpoints import read_checkpoint

PathLike = Union[str, Path]

_CHECKPOINT = re.compile(r'(epoch|iter)_(\d+)\.pth')
_TIMESTAMP = re.compile(r'_?\d{8}_\d{6}$')


class WorkDirError(RuntimeError):
    """A work dir that belongs to another run or process, or holds no result.
    """


def named_checkpoint(work_dir: PathLike) -> Optional[str]:
    """The checkpoint that a work dir's ``last_checkpoint`` names.

    MMEngine writes an absolute path there. Of a work dir that was moved or
    copied since, the file in it is meant.

    Args:
        work_dir (str | Path): The work dir.

    Returns:
        str, optional: Path of the file, which need not exist. None where
        nothing is named.
    """
    file = osp.join(work_dir, 'last_checkpoint')
    if not osp.isfile(file):
        return None
    with open(file) as content:
        path = content.read().strip()
    return moved(work_dir, path) if path else None


def moved(work_dir: PathLike, path: str) -> str:
    """Where a file of a work dir is, after the work dir was moved or copied.

    Args:
        work_dir (str | Path): The work dir.
        path (str): Path of the file, as written down before.

    Returns:
        str: The file of that name in the work dir, ``path`` without one.
    """
    here = osp.join(work_dir, osp.basename(path))
    return here if osp.exists(here) else path


def latest_checkpoint(work_dir: PathLike) -> Optional[str]:
    """The newest checkpoint of a work dir that can be read.

    Usually that is the one that ``last_checkpoint`` names. MMEngine deletes
    an old checkpoint before the new one is whole, and names it after that:
    where a run was killed then, the one with the highest number counts.

    Args:
        work_dir (str | Path): The work dir.

    Returns:
        str, optional: The path. None if there is none.

    Example:
        >>> latest_checkpoint('work_dirs/nothing') is None
        True
        >>> folder = osp.dirname(checkpoint)
        >>> latest_checkpoint(folder) == checkpoint
        True
    """
    named = named_checkpoint(work_dir)
    for path in ([named] if named else []) + _numbered(work_dir, named):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            log(f'{path} is left out: {error}', logging.WARNING)
            continue
        if path != named:
            log(f'{path} is the newest whole checkpoint in {work_dir}')
        return path
    return None


def _numbered(work_dir: PathLike, named: Optional[str]) -> List[str]:
    """All other checkpoints of a work dir, the highest number first, and
    first those that count the same as the one that is named."""
    name = osp.basename(named or '')
    kind = name.partition('_')[0]
    found = []
    for other in os.listdir(work_dir) if osp.isdir(work_dir) else []:
        match = _CHECKPOINT.fullmatch(other)
        if match and other != name:
            found.append((match[1] == kind, int(match[2]), other))
    return [osp.join(work_dir, entry[-1]) for entry in sorted(found)[::-1]]


def resolve_resume(cfg: Config, resume: Optional[str] = None) -> None:
    """Settle what training starts from: a run of its own or ``load_from``.

    MMEngine's automatic resumption forgets ``load_from`` even where there is
    nothing to resume, and the host would start from random weights. Here
    ``load_from`` is kept in that case.

    Args:
        cfg (Config): The config with its ``work_dir``, edited in place.
        resume (str, optional): A checkpoint, or ``'auto'`` for the latest in
            the work dir. Defaults to None: what the config says.

    Raises:
        WorkDirError: If the work dir's run is of another config.
    """
    if resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, resume
    elif resume == 'auto' or (cfg.get('resume') and not cfg.get('load_from')):
        found = latest_checkpoint(cfg.work_dir)
        if found:
            check_run(cfg, found)
            cfg.resume, cfg.load_from = True, found
            return
        cfg.resume = False
        log(f'nothing to resume in {cfg.work_dir}: starting anew')
    _warn_of_other_run(cfg)


def check_run(cfg: Config, checkpoint: str) -> None:
    """Raise unless a checkpoint is of a run of this config.

    The checkpoint holds the name of its config, which names it whatever the
    work dir is called and whatever options were set. What else has changed in
    the model is logged.

    Args:
        cfg (Config): The config.
        checkpoint (str): Checkpoint in its work dir.

    Raises:
        WorkDirError: It is of another config.
    """
    meta = _meta(checkpoint)
    former, name = _run_name(meta), _config_name(cfg)
    if former and name and former != name:
        raise WorkDirError(
            f'the work dir {cfg.work_dir} holds a run of the config '
            f'{former!r} ({osp.basename(checkpoint)}), not of {name!r}.\n'
            f'Give {name!r} a --work-dir of its own, or go on from that run '
            f'on purpose: --resume {checkpoint}')
    _tell_changes(cfg, checkpoint, meta)


def _warn_of_other_run(cfg: Config) -> None:
    path = named_checkpoint(cfg.work_dir)
    if path is None:
        return
    try:
        meta = _meta(path)
    except CheckpointError:
        return
    former, name = _run_name(meta), _config_name(cfg)
    if former and name and former != name:
        log(f'the work dir {cfg.work_dir} holds a run of the config '
            f'{former!r}, whose checkpoints this run of {name!r} overwrites '
            'where they have the same names. Give it a --work-dir of its own',
            logging.WARNING)
    else:
        _tell_changes(cfg, path, meta)


def _tell_changes(cfg: Config, checkpoint: str, meta: dict) -> None:
    """Two folders may have a config of one name, and one config two states.
    """
    recorded = _recorded_model(meta)
    if recorded is None or 'model' not in cfg:
        return
    changes = _changes(recorded, cfg.model.to_dict(), 'model')
    if changes:
        log(f'the model of {checkpoint} was another one:\n  '
            + '\n  '.join(changes), logging.WARNING)


def _meta(path: str) -> dict:
    meta = read_checkpoint(path).get('meta')
    return meta if isinstance(meta, dict) else {}


def _run_name(meta: dict) -> str:
    """Name of the config of a run: MMEngine adds the time to it."""
    return _TIMESTAMP.sub('', meta.get('experiment_name') or '')


def _config_name(cfg: Config) -> str:
    file = osp.basename(cfg.filename or '')
    return cfg.get('experiment_name') or osp.splitext(file)[0]


def _recorded_model(meta: dict) -> Any:
    """The model in the config that MMEngine keeps in a checkpoint; nothing of
    its text is run."""
    try:
        for node in ast.parse(meta.get('cfg') or '').body:
            if isinstance(node, ast.Assign) and node.targets[0].id == 'model':
                return literal(node.value)
    except (AttributeError, SyntaxError, TypeError, ValueError):
        pass  # a config of another format
    return None


def _changes(old: Any, new: Any, path: str) -> List[str]:
    """What differs between two models, one line each. Not how they are
    initialized, which a checkpoint replaces, nor the data preprocessor, which
    the Runner adds."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line for key in keys
            if key not in ('init_cfg', 'pretrained', 'data_preprocessor')
            for line in _changes(old.get(key), new.get(key), f'{path}.{key}')
        ]
    return [] if old == new else [f'{path}: {old!r}, now {new!r}']


@contextmanager
def claimed(work_dir: PathLike, wait: bool = False) -> Iterator[None]:
    """Keep other processes from training in a work dir at the same time.

    Where the file system has no locks, nothing is kept.

    Args:
        work_dir (str | Path): The work dir, which is made.
        wait (bool): Whether to wait for a process that trains there. Defaults
            to False.

    Raises:
        WorkDirError: On every rank, if there is one and ``wait`` is off.
        WriteError: On every rank, if the work dir cannot be written.

    Example:
        >>> with claimed('work_dirs/mine'):
        ...     os.listdir('work_dirs')
        ['mine']
    """
    lock = []
    on_first_rank(lambda: lock.append(_lock(work_dir, wait)))
    try:
        yield
    finally:
        for descriptor in lock:
            os.close(descriptor)


def _lock(work_dir: PathLike, wait: bool) -> int:
    check_writable(work_dir, folder=True)
    mkdir_or_exist(work_dir)
    # the kernel forgets it when the process ends, however it ends
    descriptor = os.open(work_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                os.close(descriptor)
                raise WorkDirError(
                    f'another process trains in {work_dir}. Wait for its end, '
                    'or give this one a --work-dir of its own') from None
            log(f'waiting for another process that trains in {work_dir}')
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
    return descriptor
