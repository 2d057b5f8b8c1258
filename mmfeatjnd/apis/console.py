"""What a command-line tool tells and writes."""
import errno
import logging
import os
import os.path as osp
import tempfile
from contextlib import contextmanager

from mmengine.logging import print_log
from mmengine.utils import mkdir_or_exist

from mmfeatjnd.compat import EnvironmentProblem
from mmfeatjnd.models.hosts import CheckpointError

#: Of a write that the disk does not take; such an error names no file.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(RuntimeError):
    """A mistake of the user's, told without a traceback by the tools."""


def check_writable(path, folder=False):
    """Find out whether a file or folder can be written, and make nothing.

    For the time before the work whose results are to be written there.

    Args:
        path (str): The file or folder.
        folder (bool): Whether it is a folder. Defaults to False.

    Raises:
        UsageError: It cannot be, and why.
    """
    kinds = ['a file', 'a folder']
    at = osp.abspath(path)
    if osp.lexists(at) and osp.isdir(at) != folder:
        raise UsageError(f'cannot write {path}: it is {kinds[not folder]}, '
                         f'but {kinds[folder]} is to be written')
    if not folder:
        at = osp.dirname(at)
    while not osp.lexists(at):
        at = osp.dirname(at)
    if not osp.isdir(at):
        raise UsageError(f'cannot write {path}: {at} is no folder')
    try:
        tempfile.TemporaryFile(dir=at).close()
    except OSError as error:
        raise UsageError(
            f'cannot write {path}: {at}: {error.strerror}') from error


@contextmanager
def atomic_path(path):
    """Give a name to write to that becomes ``path`` on success.

    Args:
        path (str): The file wanted; its folder is made.

    Yields:
        str: A name beside it with the same suffix. Nothing is left of it
        after an error, and ``path`` is then as it was.

    Raises:
        UsageError: It cannot be written: found before anything runs, but for
            a disk that gets full.
    """
    check_writable(path)
    folder, name = osp.split(osp.abspath(path))
    mkdir_or_exist(folder)
    stem, suffix = osp.splitext(name)
    partial = osp.join(folder, f'.{stem}.{os.getpid()}{suffix}')
    try:
        yield partial
        if osp.exists(partial):
            os.replace(partial, path)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise UsageError(
                f'cannot write {path}: {error.strerror}') from error
        raise
    finally:
        if osp.exists(partial):
            os.remove(partial)


@contextmanager
def plain_errors():
    """End the program with the message alone, without a traceback.

    Holds for :class:`UsageError`, for packages that do not fit together, for
    checkpoints that do not fit the host, and for files that cannot be read or
    written.
    """
    try:
        yield
    except (UsageError, EnvironmentProblem, CheckpointError) as error:
        _leave(str(error), error)
    except OSError as error:
        if error.filename is not None:
            _leave(f'{error.strerror}: {error.filename}', error)
        elif error.errno in _NO_SPACE:
            _leave(error.strerror, error)
        elif isinstance(error, FileNotFoundError):  # a library's own words
            _leave(str(error), error)
        raise


def _leave(message, error):
    message = f'error: {printable(message)}'
    raise SystemExit(message if is_first() else 1) from error


def printable(text):
    r"""A text, with everything escaped that a terminal would obey or that
    cannot be printed: names of files, and what is in files, may be anything.

    Args:
        text (object): Its ``str`` is taken.

    Returns:
        str: Without control characters, but for the ends of lines.

    Example:
        >>> printable('a\x1b[2Jü')
        'a\\x1b[2Jü'
    """
    return ''.join(
        c if c.isprintable() or c == '\n' else
        c.encode('unicode_escape').decode() for c in str(text))


def is_first():
    """Whether this is rank 0, with or without a process group."""
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    ranks = [os.environ[name] for name in names if name in os.environ]
    return not ranks or int(ranks[0]) == 0


def log(message, level=logging.INFO):
    if is_first():
        print_log(message, logger='current', level=level)
