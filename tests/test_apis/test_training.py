"""Training once."""
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

from mmfeatjnd.apis import WorkDirError, train_once, trained_checkpoint

CONFIG = """
model = dict(type='TinyLine')
train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='TinyPoints'))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1,
                    max_keep_ckpts=2))
log_level = 'WARNING'
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module', autouse=True)
def registered():
    """A model of one weight, and data for it."""
    from mmengine.model import BaseModel
    from mmengine.registry import DATASETS, MODELS

    class Line(BaseModel):

        def __init__(self, data_preprocessor=None):
            super().__init__(data_preprocessor)
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, mode):
            x = torch.tensor(x)
            return dict(loss=((self.weight - 2) * x).square().mean())

    class Points(torch.utils.data.Dataset):

        def __len__(self):
            return 8

        def __getitem__(self, i):
            return dict(x=i / 8)

    MODELS.register_module(name='TinyLine', module=Line)
    DATASETS.register_module(name='TinyPoints', module=Points)
    yield
    MODELS.module_dict.pop('TinyLine')
    DATASETS.module_dict.pop('TinyPoints')


@pytest.fixture
def config(tmp_path):

    def read(work_dir, name='line', **options):
        # MMEngine keeps them by the second in which a run began
        for kept in (MessageHub, MMLogger, Visualizer):
            kept._instance_dict.clear()
        file = tmp_path / f'{name}.py'
        file.write_text(CONFIG)
        cfg = Config.fromfile(file)
        cfg.work_dir = str(tmp_path / work_dir)
        cfg.merge_from_dict(options)
        return cfg

    return read


def weight(path):
    return torch.load(path, weights_only=False)['state_dict']['weight']


def test_a_finished_run_is_not_trained_again(config, tmp_path):
    assert trained_checkpoint(tmp_path / 'a') is None
    path = train_once(config('a'))
    assert path == str(tmp_path / 'a/iter_4.pth')
    assert trained_checkpoint(tmp_path / 'a') == path
    impossible = {'train_dataloader.dataset.type': 'nothing'}
    assert train_once(config('a', **impossible)) == path
    # wherever it is moved
    shutil.move(tmp_path / 'a', tmp_path / 'b')
    path = str(tmp_path / 'b/iter_4.pth')
    assert trained_checkpoint(tmp_path / 'b') == path
    assert train_once(config('b', **impossible)) == path
    # but not as a run of another config
    with pytest.raises(WorkDirError, match="'line'.*, not of 'other'"):
        train_once(config('b', 'other'))
    # a run whose result is gone has not finished
    (tmp_path / 'b/iter_4.pth').unlink()
    assert trained_checkpoint(tmp_path / 'b') is None


def test_a_run_of_before_its_name_was_kept(config, tmp_path):
    """`done` was empty."""
    path = train_once(config('a'))
    (tmp_path / 'a/done').write_text('')
    assert trained_checkpoint(tmp_path / 'a') == path


@pytest.mark.parametrize('left', ['named', 'cut', 'nothing'])
def test_a_killed_run_is_finished(config, tmp_path, left):
    """The result is that of the run that was not killed."""
    expected = weight(train_once(config('whole')))
    train_once(config('a', **{'train_cfg.max_iters': 3}))
    work_dir = tmp_path / 'a'
    (work_dir / 'done').unlink()
    assert trained_checkpoint(work_dir) is None  # interrupted
    if left == 'cut':
        whole = (work_dir / 'iter_3.pth').read_bytes()
        (work_dir / 'iter_3.pth').write_bytes(whole[:len(whole) // 2])
    if left == 'nothing':
        for path in work_dir.glob('*.pth'):
            path.unlink()
    shutil.move(work_dir, tmp_path / 'moved')
    path = train_once(config('moved'))
    assert path == str(tmp_path / 'moved/iter_4.pth')
    assert torch.equal(weight(path), expected)


def test_a_run_killed_between_its_last_steps(config, tmp_path):
    """The last checkpoint is whole, but `last_checkpoint` names one that is
    deleted."""
    path = train_once(config('a'))
    (tmp_path / 'a/done').unlink()
    (tmp_path / 'a/last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    assert train_once(config('a')) == path
    assert trained_checkpoint(tmp_path / 'a') == path


def test_a_run_without_checkpoints(config):
    cfg = config('a', **{'default_hooks.checkpoint': None})
    with pytest.raises(WorkDirError, match='left no checkpoint'):
        train_once(cfg)
