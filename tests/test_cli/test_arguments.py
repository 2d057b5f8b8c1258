"""The flags of tools/train.py and tools/test.py."""
import os

import pytest

from mmfeatjnd.cli.arguments import parse_test_args, parse_train_args


def test_local_rank_has_two_spellings(monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    assert parse_train_args(['c.py', '--local-rank', '3']).local_rank == 3
    assert os.environ['LOCAL_RANK'] == '3'
    assert parse_test_args(['c', 'd', '--local_rank=2']).local_rank == 2
    assert os.environ['LOCAL_RANK'] == '3'  # the launcher's word counts


def test_resume_takes_a_path_or_none():
    assert parse_train_args(['c.py']).resume is None
    assert parse_train_args(['c.py', '--resume']).resume == 'auto'
    assert parse_train_args(['c.py', '--resume', 'a']).resume == 'a'


def test_no_empty_resume(capsys):
    with pytest.raises(SystemExit):
        parse_train_args(['c.py', '--resume', ''])
    assert 'argument --resume: a path is needed' in capsys.readouterr().err


def test_out_item_needs_out(capsys):
    with pytest.raises(SystemExit):
        parse_test_args(['c.py', 'd.pth', '--out-item', 'metrics'])
    assert 'give --out as well' in capsys.readouterr().err
