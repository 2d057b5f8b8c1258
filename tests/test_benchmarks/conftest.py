"""The scripts of ``benchmarks``, and a benchmark that takes seconds."""
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))

LOADER = '{name}_dataloader = dict(batch_size=4, num_workers=0, ' \
    'persistent_workers=False, dataset=dict(data_root="{root}/{name}"))\n'
HOST = """
_base_ = '{root}/configs/hosts/resnet18-w32_1xb128-5e_cifar10.py'
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64, num_classes=2))
data_preprocessor = dict(num_classes=2)
train_cfg = dict(max_epochs=2)
param_scheduler = None
"""
FEATJND = """
_base_ = '{root}/configs/featjnd/resnet18-w32_cifar10.py'
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=16),
    head=dict(in_channels=64, num_classes=2))
data_preprocessor = dict(num_classes=2)
train_cfg = dict(max_iters=3)
param_scheduler = None
"""


@pytest.fixture(scope='module')
def tiny_data(tmp_path_factory):
    """8 images to train on and 8 to test on, of two classes."""
    root = tmp_path_factory.mktemp('tiny')
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        for i in range(8):
            folder = root / split / 'ab'[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (32, 32, 3), np.uint8)
            image[..., i % 2] //= 4
            Image.fromarray(image).save(folder / f'{i}.png')
    return root


@pytest.fixture
def loaders(tiny_data):
    """The text of the data loaders of a config."""
    return ''.join(
        LOADER.format(name=name, root=tiny_data)
        for name in ('train', 'val', 'test'))


@pytest.fixture
def tiny(loaders, tmp_path, monkeypatch):
    """A benchmark 'tiny' in place of CIFAR-10, one seed, results and work dir
    in ``tmp_path``."""
    import common
    for name, text in (('host', HOST), ('featjnd', FEATJND)):
        (tmp_path / f'{name}.py').write_text(
            text.format(root=ROOT) + loaders)
    monkeypatch.setitem(
        common.BENCHMARKS, 'tiny',
        dict(
            amp=False,
            data='tiny',
            dataset='made up',
            train_split='train',
            test_split='test',
            host=str(tmp_path / 'host.py'),
            featjnd=str(tmp_path / 'featjnd.py'),
            quantization=str(tmp_path / 'host.py')))
    monkeypatch.setattr(common, 'SEEDS', (0, ))
    monkeypatch.setattr(common, 'RESULTS', tmp_path / 'results')
    return tmp_path
