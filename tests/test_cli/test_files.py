"""Files given one by one or by their folder."""
import pytest

from mmfeatjnd.cli.console import UsageError
from mmfeatjnd.cli.files import find_files


def test_find_files(tmp_path):
    for name in ('b.PNG', 'a/c.png', 'a/.d.png', 'e.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(find_files(tmp_path, ('.png', ))) == [
        (tmp_path / 'a/c.png', 'a/c.png'), (tmp_path / 'b.PNG', 'b.PNG')
    ]
    file = tmp_path / 'e.txt'  # named: whatever its suffix
    assert list(find_files(str(file), ('.png', ))) == [(file, 'e.txt')]
    with pytest.raises(UsageError, match='no does not exist'):
        list(find_files(tmp_path / 'no', ('.png', )))
    with pytest.raises(UsageError, match='no file that ends with .jpg, .gif'):
        list(find_files(tmp_path, ('.jpg', '.gif')))
