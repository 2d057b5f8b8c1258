"""Running the tools in this process."""
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from PIL import Image

from mmfeatjnd.apis import build_model
from mmfeatjnd.datasets import generate_shapes

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(autouse=True)
def _restore_environment():
    # the parsers set LOCAL_RANK
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _runs_apart():
    """MMEngine names what a run logs to by config and second: two runs of one
    process within a second would share it."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()


@pytest.fixture
def run_tool(monkeypatch):
    """Run a tool by its path below tools/, with arguments."""

    def run(name, *argv):
        path = str(TOOLS / name)
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'argv', [path, *map(str, argv)])
            runpy.run_path(path, run_name='__main__')

    return run


def loader(root, size, pipeline, **dataset):
    return dict(
        batch_size=size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(data_root=str(root), pipeline=pipeline, **dataset))


def classifier(root):
    """Two stages, the second read by its mean alone."""
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = root / 'images' / 'ab'[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(
            folder / f'{i}.png')
    load = dict(type='LoadImageFromFile')
    pack = dict(type='PackInputs')
    crop = dict(type='RandomCrop', crop_size=16)  # of the training alone
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                data_preprocessor=dict(mean=[127.5] * 3, std=[64.] * 3),
                backbone=dict(
                    type='ResNet_CIFAR',
                    depth=18,
                    stem_channels=8,
                    base_channels=8,
                    num_stages=2,
                    strides=(1, 2),
                    dilations=(1, 1),
                    out_indices=(1, )),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=4,
                          in_channels=16)),
            train_dataloader=loader(
                root / 'images', 2, [load, crop, pack], type='CustomDataset'),
            test_dataloader=loader(
                root / 'images', 5, [load, pack], type='CustomDataset'),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            test_cfg=dict(),
            test_evaluator=dict(type='Accuracy', topk=(1, ))))


def detector(root):
    """A Mask R-CNN whose laterals read 16 channels of 8, 16, 32 and 64, on
    pictures of two sizes."""
    generate_shapes(root / 'shapes', 8, 2, 64, progress=False)
    for file in sorted((root / 'shapes/train').iterdir())[:4]:
        Image.open(file).crop((0, 0, 40, 64)).save(file)
    cfg = Config.fromfile('configs/demo/mask-rcnn_tiny_shapes.py')
    for name in ('train_dataloader', 'test_dataloader'):
        cfg[name].batch_size = 4
        cfg[name].dataset.data_root = f'{root}/shapes/'
    # the annotations, which nobody needs, do not fit what was cut
    cfg.test_dataloader.dataset.pipeline = [
        t for t in cfg.test_dataloader.dataset.pipeline
        if t.type != 'LoadAnnotations'
    ]
    cfg.test_evaluator.ann_file = \
        f'{root}/shapes/annotations/instances_val.json'
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.model.rpn_head.update(in_channels=16, feat_channels=16)
    roi = cfg.model.roi_head
    roi.bbox_roi_extractor.out_channels = 16
    roi.mask_roi_extractor.out_channels = 16
    roi.bbox_head.update(in_channels=16, fc_out_channels=32)
    roi.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1)
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    return cfg


def host(make, root):
    """Config file and checkpoint, of random weights."""
    cfg = make(root)
    cfg.load_from = None
    cfg.work_dir = str(root / 'work')
    cfg.log_level = 'WARNING'
    cfg.dump(root / 'config.py')
    torch.manual_seed(0)
    torch.save(build_model(cfg).state_dict(), root / 'model.pth')
    return root / 'config.py', root / 'model.pth'


@pytest.fixture(scope='session')
def small(tmp_path_factory):
    return host(classifier, tmp_path_factory.mktemp('classifier'))


@pytest.fixture(scope='session')
def boxes(tmp_path_factory, pytestconfig):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pytestconfig.rootpath)
        return host(detector, tmp_path_factory.mktemp('detector'))
