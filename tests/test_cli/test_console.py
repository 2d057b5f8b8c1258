"""What tools tell when they fail."""
import errno

import pytest

from mmfeatjnd.apis import CodecError, ConfigError, WorkDirError, WriteError
from mmfeatjnd.cli.console import UsageError, plain_errors, printable
from mmfeatjnd.compat import EnvironmentProblem
from mmfeatjnd.models.hosts import CheckpointError


@pytest.mark.parametrize('error, message', [
    (UsageError('do that'), 'error: do that'),
    (EnvironmentProblem('install that'), 'error: install that'),
    (CheckpointError('x lacks 3'), 'error: x lacks 3'),
    (CodecError('corrupted'), 'error: corrupted'),
    (ConfigError('no neck'), 'error: no neck'),
    (WorkDirError('trains there'), 'error: trains there'),
    (WriteError('cannot write a'), 'error: cannot write a'),
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


@pytest.mark.parametrize('text, shown', [
    ('a b/ü 猫.png', 'a b/ü 猫.png'),
    ('a\x1b[2Jb', r'a\x1b[2Jb'),
    ('a\nb\t\x9b', 'a\nb\\t\\x9b'),
    ('\udcff\u202egnp', r'\udcff\u202egnp'),  # no UTF-8; right to left
    (('\x07', ), r"('\x07',)"),
])
def test_printable(text, shown):
    assert printable(text) == shown
    printable(text).encode()
