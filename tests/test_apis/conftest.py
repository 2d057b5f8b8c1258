"""A small DMV-JND for the tests of what measures it."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmfeatjnd.apis import build_model


@pytest.fixture(scope='session')
def trained_jnd(tmp_path_factory):
    """A config and a checkpoint of two random classifiers and a random net."""
    root = tmp_path_factory.mktemp('dmv_jnd')
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('test', 4)):
        for name in 'ab':
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
                Image.fromarray(pixels).resize((32, 32)).save(
                    folder / f'{i}.png')
    classifier = dict(
        default_scope='mmpretrain',
        model=dict(
            type='ImageClassifier',
            data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
            backbone=dict(
                type='ResNet_CIFAR',
                depth=18,
                stem_channels=8,
                base_channels=8,
                num_stages=1,
                strides=(2, ),
                dilations=(1, ),
                out_indices=(0, )),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=8)))

    def loader(split):
        return dict(
            batch_size=3,
            num_workers=0,
            dataset=dict(
                type='CustomDataset',
                data_root=str(root / split),
                pipeline=[dict(type='LoadImageFromFile'),
                          dict(type='PackInputs')]),
            sampler=dict(type='DefaultSampler', shuffle=False))

    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(root / 'work'),
            model=dict(
                type='mmfeatjnd.DMVJND',
                tasks=[
                    dict(
                        type='mmfeatjnd.ClassificationTask',
                        name=name,
                        config=classifier) for name in 'ab'
                ],
                net=dict(type='mmfeatjnd.DMVJNDNet', widths=(8, 8, 8))),
            train_dataloader=loader('train'),
            test_dataloader=loader('test'),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='Adam')),
            test_cfg=dict(),
            test_evaluator=[
                dict(type='mmfeatjnd.RelativeAccuracy'),
                dict(type='mmfeatjnd.PeakSNR'),
                dict(type='mmfeatjnd.JNDMagnitude'),
            ]))
    torch.manual_seed(0)
    model = build_model(cfg)
    file = root / 'model.pth'
    torch.save(dict(state_dict=model.state_dict()), file)
    return cfg, str(file)
