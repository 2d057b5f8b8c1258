"""Whose run a work dir holds, how far it got, and who trains there."""
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmfeatjnd.apis.work_dirs import (
    WorkDirError,
    claimed,
    latest_checkpoint,
    resolve_resume,
)
from mmfeatjnd.utils import WriteError


class Messages(logging.Handler):
    """What is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.levelname, record.getMessage()))

    def find(self, level, *parts):
        return [
            text for name, text in self.lines
            if name == level and all(part in text for part in parts)
        ]


@pytest.fixture
def logged():
    logger = MMLogger.get_current_instance()
    handler = Messages()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def save(folder, name, config='a', model='dict(width=1)', named=True):
    """A checkpoint as a run of ``<config>.py`` leaves it."""
    folder.mkdir(exist_ok=True)
    path = folder / f'{name}.pth'
    torch.save(
        dict(
            state_dict=dict(w=torch.zeros(1000)),
            message_hub={},
            meta=dict(
                epoch=0,
                iter=1,
                experiment_name=f'{config}_20250102_030405',
                cfg=f'model = {model}\nwork_dir = "x"\n')), path)
    if named:
        (folder / 'last_checkpoint').write_text(str(path.absolute()))
    return str(path)


def config(folder, name='a', **kwargs):
    cfg = Config(
        dict(dict(model=dict(width=1), work_dir=str(folder)), **kwargs),
        filename=f'/somewhere/{name}.py',
        cfg_text='as in the file')
    return cfg


def cut(path):
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


# ---------------------------------------------------------------- how far
def test_the_named_checkpoint_is_the_latest(tmp_path):
    assert latest_checkpoint(tmp_path / 'none') is None
    assert latest_checkpoint(tmp_path) is None
    save(tmp_path, 'iter_30', named=False)  # of a longer run before
    path = save(tmp_path, 'iter_20')
    assert latest_checkpoint(tmp_path) == path


def test_a_work_dir_that_was_moved_or_copied(tmp_path):
    path = save(tmp_path / 'a', 'iter_2')
    shutil.copytree(tmp_path / 'a', tmp_path / 'copy')
    (tmp_path / 'a').rename(tmp_path / 'moved')
    for name in ('copy', 'moved'):
        folder = tmp_path / name
        assert latest_checkpoint(folder) == str(folder / 'iter_2.pth')
    shutil.copytree(tmp_path / 'copy', tmp_path / 'a')  # again as it was
    assert latest_checkpoint(tmp_path / 'a') == path
    # beside its original, a copy goes on from its own file
    assert latest_checkpoint(tmp_path / 'copy') == str(
        tmp_path / 'copy/iter_2.pth')


def test_a_checkpoint_elsewhere(tmp_path):
    """As `default_hooks.checkpoint.out_dir` puts them."""
    path = save(tmp_path / 'out', 'iter_2')
    (tmp_path / 'w').mkdir()
    shutil.copy(tmp_path / 'out/last_checkpoint', tmp_path / 'w')
    assert latest_checkpoint(tmp_path / 'w') == path


def test_killed_before_a_new_checkpoint_was_whole(tmp_path, logged):
    """Two are kept: the third is cut off, the first deleted, the second
    named. Or, with one kept, nothing that is named is there."""
    save(tmp_path, 'iter_1000', named=False)
    path = save(tmp_path, 'iter_200')
    cut(save(tmp_path, 'iter_3000', named=False))
    assert latest_checkpoint(tmp_path) == path
    os.remove(path)
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'iter_1000.pth')
    assert logged.find('WARNING', 'iter_3000.pth is left out')
    assert logged.find('WARNING', 'iter_200.pth is left out', 'no such file')
    assert logged.find('INFO', 'iter_1000.pth is the newest whole')
    for broken in (b'', b'text'):
        (tmp_path / 'iter_1000.pth').write_bytes(broken)
        assert latest_checkpoint(tmp_path) is None


def test_epochs_and_iterations_are_not_compared(tmp_path):
    save(tmp_path, 'iter_900', named=False)
    save(tmp_path, 'epoch_9', named=False)
    save(tmp_path, 'epoch_10', named=False)
    os.remove(save(tmp_path, 'epoch_11'))
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_10.pth')


def test_the_best_checkpoint_is_not_the_latest(tmp_path):
    save(tmp_path, 'best_accuracy_top1_epoch_7', named=False)
    (tmp_path / 'last_checkpoint').write_text('')  # killed in writing it
    assert latest_checkpoint(tmp_path) is None


# -------------------------------------------------------------- whose run
def test_resume_refuses_the_run_of_another_config(tmp_path, logged):
    path = save(tmp_path / 'w', 'iter_2', config='b')
    for how in (dict(resume='auto'), dict()):
        cfg = config(tmp_path / 'w', resume=True)
        with pytest.raises(WorkDirError) as error:
            resolve_resume(cfg, **how)
        message = str(error.value)
        for part in ("'a'", "'b'", 'iter_2.pth', '--work-dir',
                     f'--resume {path}'):
            assert part in message
    # moved, too
    (tmp_path / 'w').rename(tmp_path / 'moved')
    with pytest.raises(WorkDirError, match="the config 'b'"):
        resolve_resume(config(tmp_path / 'moved'), 'auto')
    # on purpose
    cfg = config(tmp_path / 'moved')
    resolve_resume(cfg, 'some.pth')
    assert cfg.resume and cfg.load_from == 'some.pth'


def test_training_over_another_run_is_said_aloud(tmp_path, logged):
    save(tmp_path, 'iter_2', config='b')
    cfg = config(tmp_path, load_from='host.pth')
    resolve_resume(cfg)
    assert not cfg.get('resume') and cfg.load_from == 'host.pth'
    assert logged.find('WARNING', str(tmp_path), "'b'", "'a'", '--work-dir')
    logged.lines.clear()
    resolve_resume(config(tmp_path, 'b'))
    assert not logged.lines


def test_the_same_config_with_other_options_is_the_same(tmp_path, logged):
    path = save(tmp_path, 'iter_2', config='a_20x_b')
    cfg = config(tmp_path, 'a_20x_b', lr=3, load_from='host.pth')
    resolve_resume(cfg, 'auto')
    assert cfg.resume and cfg.load_from == path
    assert not logged.find('WARNING')
    # a name that the config gives itself
    path = save(tmp_path, 'iter_3', config='mine')
    cfg = config(tmp_path, experiment_name='mine')
    resolve_resume(cfg, 'auto')
    assert cfg.load_from == path


def test_another_model_of_a_config_of_that_name_is_told(tmp_path, logged):
    """Two folders may have a config of one name; so may one, edited."""
    old = ("dict(neck=dict(estimator=dict(mode='signed', width=8)), "
           "init_cfg=dict(type='Pretrained'), sizes=[(1, 2)])")
    path = save(tmp_path, 'iter_2', model=old)
    model = dict(
        neck=dict(estimator=dict(mode='envelope', width=8)), sizes=[(1, 2)])
    cfg = config(tmp_path, model=model)
    resolve_resume(cfg, 'auto')
    assert cfg.load_from == path
    resolve_resume(config(tmp_path, model=model))  # or over it
    lines = logged.find('WARNING', 'was another one')
    assert [line.splitlines()[1:] for line in lines] == 2 * [[
        "  model.neck.estimator.mode: 'signed', now 'envelope'"
    ]]


def test_a_checkpoint_that_names_no_config(tmp_path, logged):
    path = save(tmp_path, 'iter_2')
    for content in (dict(state_dict={}, meta=None), dict(w=torch.ones(1))):
        torch.save(content, path)
        cfg = config(tmp_path)
        resolve_resume(cfg)
        resolve_resume(cfg, 'auto')  # what it lacks is told later
        assert cfg.load_from == path
    assert not logged.lines


def test_nothing_in_the_recorded_config_is_run(tmp_path):
    path = tmp_path / 'ran'
    save(tmp_path, 'iter_2', model=f'open({str(path)!r}, "w")')
    resolve_resume(config(tmp_path), 'auto')
    assert not path.exists()


# ---------------------------------------------------------- who trains there
def test_one_training_at_a_time(tmp_path):
    work_dir = str(tmp_path / 'w')
    code = ('from mmfeatjnd.apis.work_dirs import claimed\n'
            'import sys, time\n'
            f'with claimed({work_dir!r}):\n'
            '    print("claimed", flush=True)\n'
            '    time.sleep(60)\n')
    other = subprocess.Popen([sys.executable, '-c', code],
                             stdout=subprocess.PIPE, text=True)
    try:
        while other.stdout.readline() != 'claimed\n':
            assert other.poll() is None
        with pytest.raises(WorkDirError, match=f'trains in {work_dir}. Wait'):
            with claimed(work_dir):
                pass
        with claimed(str(tmp_path / 'another')):
            pass
        other.send_signal(signal.SIGKILL)
        start = time.time()
        with claimed(work_dir, wait=True):  # nothing is left behind
            assert time.time() - start < 30
    finally:
        other.kill()
        other.wait()
    assert os.listdir(work_dir) == []
    with claimed(work_dir):
        pass
    with pytest.raises(WriteError, match='cannot write'):
        save(tmp_path, 'file')
        with claimed(tmp_path / 'file.pth/w'):
            pass
