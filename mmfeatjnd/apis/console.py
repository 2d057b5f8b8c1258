"""What a command-line tool tells and writes."""
import logging
import os
import os.path as osp
import sys
from contextlib import contextmanager

from mmengine.logging import print_log
from mmengine.utils import mkdir_or_exist

from mmfeatjnd.compat import EnvironmentProblem


class UsageError(RuntimeError):
    """A mistake of the user's, told without a traceback by the tools."""


@contextmanager
def atomic_path(path):
    """Give a name to write to that becomes ``path`` on success.

    Args:
        path (str): The file wanted; its folder is made.

    Yields:
        str: A name beside it with the same suffix. Nothing is left of it
        after an error, and ``path`` is then as it was.
    """
    folder, name = osp.split(osp.abspath(path))
    mkdir_or_exist(folder)
    stem, suffix = osp.splitext(name)
    partial = osp.join(folder, f'.{stem}.{os.getpid()}{suffix}')
    try:
        yield partial
        if osp.exists(partial):
            os.replace(partial, path)
    finally:
        if osp.exists(partial):
            os.remove(partial)


@contextmanager
def plain_errors():
    """End the program with the message alone, without a traceback.

    Holds for :class:`UsageError` and for packages that do not fit together.
    """
    try:
        yield
    except (UsageError, EnvironmentProblem) as error:
        sys.exit(f'error: {printable(error)}' if is_first() else 1)


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
