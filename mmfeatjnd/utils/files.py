"""Files that are written whole or not at all."""
import errno
import os
import os.path as osp
import tempfile
from contextlib import contextmanager
from typing import Iterator, Union

from mmengine.utils import mkdir_or_exist

#: Of a write that the disk does not take; such an error names no file.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

PathLike = Union[str, os.PathLike]


class WriteError(OSError):
    """A file or folder that cannot be written; the message says which, and
    why."""


def check_writable(path: PathLike, folder: bool = False) -> None:
    """Find out whether a file or folder can be written, and make nothing.

    For the time before the work whose results are to be written there.

    Args:
        path (str | Path): The file or folder.
        folder (bool): Whether it is a folder. Defaults to False.

    Raises:
        WriteError: It cannot be, and why.
    """
    kinds = ['a file', 'a folder']
    at = osp.abspath(path)
    if osp.lexists(at) and osp.isdir(at) != folder:
        raise WriteError(f'cannot write {path}: it is {kinds[not folder]}, '
                         f'but {kinds[folder]} is to be written')
    if not folder:
        at = osp.dirname(at)
    while not osp.lexists(at):
        at = osp.dirname(at)
    if not osp.isdir(at):
        raise WriteError(f'cannot write {path}: {at} is no folder')
    try:
        tempfile.TemporaryFile(dir=at).close()
    except OSError as error:
        raise WriteError(
            f'cannot write {path}: {at}: {error.strerror}') from error


@contextmanager
def atomic_path(path: PathLike) -> Iterator[str]:
    """Give a name to write to that becomes ``path`` on success.

    Args:
        path (str | Path): The file wanted; its folder is made.

    Yields:
        str: A name beside it with the same suffix. Nothing is left of it
        after an error, and ``path`` is then as it was.

    Raises:
        WriteError: It cannot be written: found before anything runs, but for
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
        if error.errno in NO_SPACE:
            raise WriteError(
                f'cannot write {path}: {error.strerror}') from error
        raise
    finally:
        if osp.exists(partial):
            os.remove(partial)
