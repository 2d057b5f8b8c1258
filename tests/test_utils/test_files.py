"""Files that cannot be written, and files that are written whole."""
import errno
import os

import pytest

from mmfeatjnd.utils import WriteError, atomic_path, check_writable


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
    with pytest.raises(WriteError, match=f'cannot write .*{path}: .*{reason}'):
        check_writable(tree / path, folder)
    if not folder:
        with pytest.raises(WriteError, match=reason):
            with atomic_path(tree / path):
                raise AssertionError('found after the work')
    assert sorted(os.listdir(tree)) == ['file', 'folder']


def test_what_can_be_written(tree):
    for path, folder in (('file', False), ('folder', True), ('a/b', False),
                         ('a/b', True)):
        check_writable(tree / path, folder)
    assert sorted(os.listdir(tree)) == ['file', 'folder']  # nothing is made


def test_a_full_disk(tree):
    with pytest.raises(WriteError, match='cannot write .*file: No space left'):
        with atomic_path(tree / 'file') as path:
            with open(path, 'w') as file:
                file.write('half')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tree / 'file').read_text() == 'old'
    assert sorted(os.listdir(tree)) == ['file', 'folder']


def test_atomic_path_leaves_nothing_half_written(tmp_path):
    target = tmp_path / 'a.json'
    target.write_text('old')
    with pytest.raises(RuntimeError):
        with atomic_path(str(target)) as path:
            open(path, 'w').write('ha')
            raise RuntimeError('stop')
    assert target.read_text() == 'old' and os.listdir(tmp_path) == ['a.json']
    with atomic_path(str(target)) as path:
        assert path.endswith('.json')
        open(path, 'w').write('new')
    assert target.read_text() == 'new' and os.listdir(tmp_path) == ['a.json']
