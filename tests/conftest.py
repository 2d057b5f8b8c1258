"""One tiny host of each library; random weights, seconds on a CPU."""
import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

SIZE = 32  # of the images, in pixels
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope='session')
def _nothing_is_left_in_the_checkout():
    """Tests write below ``tmp_path``, whatever the tools' defaults are."""
    before = set(ROOT.iterdir())
    yield
    left = {f.name for f in set(ROOT.iterdir()) - before}
    assert not left - {'.pytest_cache', '.ruff_cache'}, left


@pytest.fixture(autouse=True)
def _no_default_scope():
    """A Runner leaves its scope behind; no test may depend on it."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def messages():
    """What MMEngine's logger is given meanwhile, one string each."""
    found = []

    class Keep(logging.Handler):

        def emit(self, record):
            found.append(record.getMessage())

    handler, logger = Keep(), MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def _classifier():
    return dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(
            type='ClsDataPreprocessor', mean=[0.] * 3, std=[1.] * 3),
        backbone=dict(
            type='ResNet_CIFAR',
            depth=18,
            stem_channels=8,
            base_channels=8,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2, )),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=4,
            in_channels=32,
            loss=dict(type='CrossEntropyLoss'),
            topk=(1, )))


def _segmentor():
    return dict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[0.] * 3,
            std=[1.] * 3,
            size=(SIZE, SIZE)),
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            stem_channels=8,
            base_channels=8,
            norm_cfg=dict(type='BN')),
        decode_head=dict(
            type='FCNHead',
            in_channels=64,
            in_index=3,
            channels=8,
            num_convs=1,
            dropout_ratio=0.1,
            num_classes=3,
            loss_decode=dict(type='CrossEntropyLoss')),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'))


def _detector():
    cfg = get_config('mmdet::_base_/models/mask-rcnn_r50_fpn.py').model
    cfg.backbone.update(
        depth=18, base_channels=8, init_cfg=None, norm_eval=False)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.rpn_head.anchor_generator.scales = [2]
    roi = cfg.roi_head
    roi.bbox_roi_extractor.out_channels = 16
    roi.mask_roi_extractor.out_channels = 16
    roi.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    roi.mask_head.update(
        in_channels=16, conv_out_channels=16, num_convs=1, num_classes=3)
    cfg.train_cfg.rpn.sampler.num = 16
    cfg.train_cfg.rpn_proposal.update(nms_pre=32, max_per_img=16)
    cfg.train_cfg.rcnn.sampler.num = 16
    cfg.test_cfg.rpn.update(nms_pre=32, max_per_img=16)
    cfg.test_cfg.rcnn.update(max_per_img=5, score_thr=0.0)
    return dict(cfg.to_dict(), type='mmdet.MaskRCNN')


_HOSTS = dict(classifier=_classifier, segmentor=_segmentor, detector=_detector)
_CHANNELS = dict(classifier=[32], segmentor=[8, 16, 32, 64], detector=None)


def host_cfg(kind):
    """The config of the plain host: 'classifier', 'segmentor', 'detector'."""
    return copy.deepcopy(_HOSTS[kind]())


def featjnd_cfg(kind,
                plain=False,
                training=None,
                discrepancy=None,
                objective=None,
                **neck):
    """The same host with a FeatJND neck; ``plain`` keeps the host's type.
    The estimator is signed unless ``estimator=dict(mode=...)`` says
    otherwise."""
    cfg = host_cfg(kind)
    estimator = dict(
        type='mmfeatjnd.ConvEstimator', hidden_channels=8, mode='signed')
    estimator.update(neck.pop('estimator', {}))
    if neck.get('split', 'backbone') == 'backbone':
        neck.setdefault('in_channels', _CHANNELS[kind])
    cfg['neck'] = dict(
        type='mmfeatjnd.FeatJNDNeck',
        neck=cfg.get('neck'),
        estimator=estimator,
        **neck)
    if plain:
        return cfg
    cfg.update(
        type='mmfeatjnd.FeatJND',
        host=cfg['type'],
        training=training,
        discrepancy=discrepancy)
    if estimator['mode'] != 'sensitivity':
        cfg['objective'] = dict(
            type='mmfeatjnd.FeatJNDLoss', **(objective or {}))
    return cfg


@pytest.fixture
def build():
    """Build a model, always with the same weights: evaluate, then train."""

    def build(cfg, **kwargs):
        if isinstance(cfg, str):
            cfg = featjnd_cfg(cfg, **kwargs)
        torch.manual_seed(0)
        scope = cfg.get('host', cfg['type']).partition('.')[0]
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(ConfigDict(copy.deepcopy(cfg))).eval()

    return build


def _boxes(index):
    x = 4. * index + 2
    return torch.tensor([[x, 3., x + 12, 20.], [10., 8., 30., 28.]])


def make_batch(kind, size=2, first=0):
    """(inputs, data samples) with annotations, images ``first``, ..."""
    ids = range(first, first + size)
    images = []
    for i in ids:
        generator = torch.Generator().manual_seed(i)
        images.append(torch.randn(3, SIZE, SIZE, generator=generator))
    meta = dict(
        img_shape=(SIZE, SIZE),
        ori_shape=(SIZE, SIZE),
        pad_shape=(SIZE, SIZE),
        batch_input_shape=(SIZE, SIZE),
        scale_factor=(1., 1.))
    make = globals()[f'_{kind}_sample']
    return torch.stack(images), [make(i, dict(meta, img_id=i)) for i in ids]


def _classifier_sample(index, meta):
    from mmpretrain.structures import DataSample
    return DataSample(metainfo=meta).set_gt_label(index % 4)


def _segmentor_sample(index, meta):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sample = SegDataSample(metainfo=meta)
    rows = torch.arange(SIZE)[:, None].expand(SIZE, SIZE)
    sample.gt_sem_seg = PixelData(data=((rows + index) // 8 % 3)[None])
    return sample


def _detector_sample(index, meta):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData
    sample = DetDataSample(metainfo=meta)
    boxes = _boxes(index)
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0:y1, x0:x1] = 1
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([index % 3, 2]),
        masks=BitmapMasks(masks.numpy(), SIZE, SIZE))
    return sample


@pytest.fixture
def batch():
    return make_batch


@pytest.fixture
def configs():
    """(config of the plain host, config with FeatJND), by kind of host."""
    return host_cfg, featjnd_cfg


@pytest.fixture(scope='module')
def small_classifier(tmp_path_factory):
    """A config of ``configs/featjnd`` made small, to be tested only, and a
    folder with its images; the estimator is in envelope mode."""
    root = tmp_path_factory.mktemp('small')
    rng = np.random.default_rng(0)
    for name in ('a', 'b'):
        folder = root / 'images' / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(
                0, 256, (SIZE, SIZE, 3), np.uint8)).save(folder / f'{i}.png')
    cfg = Config.fromfile(ROOT / 'configs/featjnd/resnet18_cifar10.py')
    cfg.test_dataloader.update(
        batch_size=4, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.data_root = str(root / 'images')
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'] = cfg[f'{name}_cfg'] = None
    cfg.val_evaluator = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.model.backbone.update(stem_channels=8, base_channels=8)
    cfg.model.neck.in_channels = 16
    cfg.model.neck.estimator.mode = 'envelope'
    cfg.model.head.update(in_channels=64, num_classes=2)
    cfg.data_preprocessor.num_classes = 2
    cfg.test_evaluator = dict(type='Accuracy', topk=(1, ))
    return cfg, root


@pytest.fixture
def equal():
    """Raise unless two values are equal, of the same types all the way down,
    to the last bit."""

    def equal(a, b):
        assert type(a) is type(b)
        if isinstance(a, torch.Tensor):
            assert a.shape == b.shape and a.dtype == b.dtype
            assert b.is_meta if a.is_meta else torch.equal(a, b)
        elif isinstance(a, (np.ndarray, np.generic)):
            assert a.dtype == b.dtype and np.array_equal(a, b)
        elif isinstance(a, dict):
            assert list(a) == list(b)
            for key in a:
                equal(a[key], b[key])
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            for x, y in zip(a, b):
                equal(x, y)
        else:
            assert a == b

    return equal
