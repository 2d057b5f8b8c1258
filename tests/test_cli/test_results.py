"""What the tools write at their end."""
import json
import os

import pytest

from mmfeatjnd.cli.console import UsageError
from mmfeatjnd.cli.results import check_suffix, save_results
from mmfeatjnd.utils import WriteError

ROWS = [dict(name='clean', metrics=dict(top1=0.5)),
        dict(name='noise', metrics=dict(top1=0.4))]


def table(rows):
    return '\n'.join(row['name'] for row in rows)


def draw(rows, path):
    with open(path, 'w') as file:
        file.write(f'{len(rows)} rows')


def test_rows_table_and_pictures(tmp_path, capsys):
    out = tmp_path / 'new'
    save_results(ROWS, out, 'curve', table, {'a.png': draw, 'b.png': draw},
                 'top1')
    assert json.loads((out / 'curve.json').read_text()) == ROWS
    assert (out / 'curve.md').read_text() == 'clean\nnoise'
    assert (out / 'b.png').read_text() == '2 rows'
    assert capsys.readouterr().out == (
        f'\nclean\nnoise\nSaved to {out}/curve.json, curve.md, a.png, b.png\n')


def test_the_rows_are_not_lost(tmp_path):
    with pytest.raises(UsageError, match='--metric AP: the config measures '
                       'top1. The rows are in .*curve.json'):
        save_results(ROWS, tmp_path, 'curve', table, {}, 'AP')
    assert os.listdir(tmp_path) == ['curve.json']
    with pytest.raises(ZeroDivisionError):
        save_results(ROWS, tmp_path, 'rates', table,
                     {'a.png': lambda rows, path: 1 / 0})
    assert sorted(os.listdir(tmp_path)) == [
        'curve.json', 'rates.json', 'rates.md'
    ]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(WriteError, match='file is no folder'):
        save_results(ROWS, tmp_path / 'file', 'curve', table, {})


def test_check_suffix():
    check_suffix('a.pkl', ('.pkl', '.pickle'), 'predictions')
    with pytest.raises(UsageError, match='--out a.txt: predictions are writ'):
        check_suffix('a.txt', ('.pkl', ), 'predictions')
