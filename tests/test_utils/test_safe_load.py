"""Checkpoints that hold code."""
import io
import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader

from mmfeatjnd.utils import UnsafeCheckpoint, load_safely, safe_loading
from mmfeatjnd.utils.safe_load import TRUST


class Code:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


class Climb:
    """Reaches out from what is on the list."""

    def __reduce__(self):
        return getattr, (HistoryBuffer.mean, '__globals__')


@pytest.fixture
def loaders():
    before = dict(CheckpointLoader._schemes)
    yield
    CheckpointLoader._schemes.clear()
    CheckpointLoader._schemes.update(before)


def schedule():
    """The state of a schedule that names its own function."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    return OneCycleLR(optimizer, eta_max=0.2, total_steps=9).state_dict()


def training(**more):
    hub = MessageHub('test_safe_load')
    hub.update_scalar('loss', np.float64(0.5))
    return dict(
        state_dict=dict(w=torch.ones(2)),
        message_hub=hub.state_dict(),
        meta=dict(epoch=1, iter=2, cfg='text', classes=('a', 'b')),
        optimizer=torch.optim.SGD([torch.ones(1)], 0.1).state_dict(),
        param_schedulers=[dict(last_step=2, base=np.float64(0.1)),
                          schedule()], **more)


def test_a_training_checkpoint_is_read(tmp_path, loaders):
    torch.save(training(), tmp_path / 'a.pth')
    load_safely()
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert found['message_hub']['log_scalars']['loss'].data[0] == [0.5]
    assert found['meta'] == training()['meta']


@pytest.mark.parametrize('bad', ['code', 'climb'])
def test_code_is_refused(tmp_path, loaders, bad):
    mark = tmp_path / 'mark'
    what = Code(mark) if bad == 'code' else Climb()
    torch.save(training(other=what), tmp_path / 'a.pth')
    load_safely()
    load_safely()  # once more does not stack
    for _ in range(2):
        with pytest.raises(UnsafeCheckpoint, match=f'{TRUST}=1'):
            CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert not mark.exists()


def test_who_trusts_a_file_says_so(tmp_path, loaders, monkeypatch):
    torch.save(dict(x=Code(tmp_path / 'mark')), tmp_path / 'a.pth')
    monkeypatch.setenv(TRUST, '1')
    load_safely()
    with safe_loading():
        torch.load(tmp_path / 'a.pth')['x'].close()
    assert (tmp_path / 'mark').exists()


def test_what_others_allow_does_not_count(tmp_path):
    torch.save(dict(x=Climb()), tmp_path / 'a.pth')
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([getattr]):
        with safe_loading(), pytest.raises(UnsafeCheckpoint):
            torch.load(tmp_path / 'a.pth', weights_only=False)
        assert getattr in torch.serialization.get_safe_globals()
    assert set(torch.serialization.get_safe_globals()) == before


def test_no_other_way_of_unpickling(tmp_path):
    torch.save(dict(x=Code(tmp_path / 'mark')), tmp_path / 'a.pth')
    with safe_loading():
        for kwargs in (dict(weights_only=False), dict(pickle_module=pickle)):
            with pytest.raises(UnsafeCheckpoint):
                torch.load(io.BytesIO((tmp_path / 'a.pth').read_bytes()),
                           **kwargs)
    assert os.listdir(tmp_path) == ['a.pth']
