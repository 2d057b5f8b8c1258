"""What tools tell of files that cannot be written or read."""
import errno
import os

import pytest

from mmfeatjnd.apis.console import (
    UsageError,
    atomic_path,
    check_writable,
    plain_errors,
)
from mmfeatjnd.compat import EnvironmentProblem
from mmfeatjnd.models.hosts import CheckpointError


@pytest.fixture
def tree(tmp_path):
    """A file and a folder."""
    (tmp_path / 'file').write_text('old')
    (tmp_path / 'folder').mkdir()
    return tmp_path


@pytest.mark.parametrize('path, folder, reason', [
    ('folder', False, 'it is a folder, but a file is to be written'),
    ('file', True, 'it is a file, but a folder is to be written'),
    ('file/below', False, 'file is no folder'),
    ('file/deep/below', True, 'file is no folder'),
    ('/proc/x', False, '/proc: '),
    ('/proc/x', True, '/proc: '),
])
def test_what_cannot_be_written(tree, path, folder, reason):
    with pytest.raises(UsageError, match=f'cannot write .*{path}: .*{reason}'):
        check_writable(tree / path, folder)
    if not folder:
        with pytest.raises(UsageError, match=reason):
            with atomic_path(tree / path):
                raise AssertionError('found after the work')
    assert sorted(os.listdir(tree)) == ['file', 'folder']


def test_what_can_be_written(tree):
    for path, folder in (('file', False), ('folder', True), ('a/b', False),
                         ('a/b', True)):
        check_writable(tree / path, folder)
    assert sorted(os.listdir(tree)) == ['file', 'folder']  # nothing is made


def test_a_full_disk(tree):
    with pytest.raises(UsageError, match='cannot write .*file: No space left'):
        with atomic_path(tree / 'file') as path:
            with open(path, 'w') as file:
                file.write('half')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tree / 'file').read_text() == 'old'
    assert sorted(os.listdir(tree)) == ['file', 'folder']


@pytest.mark.parametrize('error, message', [
    (UsageError('do that'), 'error: do that'),
    (EnvironmentProblem('install that'), 'error: install that'),
    (CheckpointError('x lacks 3'), 'error: x lacks 3'),
    (PermissionError(13, 'Permission denied', 'a/b'),
     'error: Permission denied: a/b'),
    (OSError(errno.ENOSPC, 'No space left on device'),
     'error: No space left on device'),
    (FileNotFoundError('a.pth can not be found.'),
     'error: a.pth can not be found.'),
    (UsageError('a\x1b[2J'), r'error: a\x1b[2J'),
])
def test_plain_errors(error, message, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as raised:
        with plain_errors():
            raise error
    assert raised.value.code == message and raised.value.__cause__ is error
    monkeypatch.setenv('RANK', '1')  # told by rank 0
    with pytest.raises(SystemExit) as raised:
        with plain_errors():
            raise error
    assert raised.value.code == 1


@pytest.mark.parametrize('error', [
    ValueError('a fault of ours'), KeyError('x'), OSError('a socket'),
    ConnectionResetError(104, 'Connection reset by peer')
])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        with plain_errors():
            raise error
