"""The library of a model, whatever the default scope says."""
import pytest
from mmengine.config import Config
from mmengine.config.lazy import LazyObject

from mmfeatjnd.apis import build_model
from mmfeatjnd.utils import config_library, read_config, type_name


def mine():
    """A user's own subclass of a host."""
    from mmseg.models import EncoderDecoder
    return type('Mine', (EncoderDecoder, ), {'__module__': 'my.models'})


def featjnd():
    from mmfeatjnd.models import build_featjnd
    return build_featjnd


def detector():
    return LazyObject('mmdet.models', 'MaskRCNN')


@pytest.mark.parametrize('model, scope, library', [
    (lambda: dict(type='ImageClassifier'), 'mmpretrain', 'mmpretrain'),
    (lambda: dict(type='mmseg.EncoderDecoder'), 'mmdet', 'mmseg'),
    (lambda: dict(type='mmdet.MaskRCNN'), None, 'mmdet'),
    (lambda: dict(type='mmdet.models.detectors.MaskRCNN'), None, 'mmdet'),
    (lambda: dict(type=detector()), None, 'mmdet'),
    (lambda: dict(type=detector().build()), None, 'mmdet'),
    (lambda: dict(type=mine()), 'mmdet', 'mmseg'),
    (lambda: dict(type='mmfeatjnd.FeatJND', host='mmdet.MaskRCNN'), None,
     'mmdet'),
    (lambda: dict(type=featjnd(), host=mine()), None, 'mmseg'),
    (lambda: dict(type=featjnd(), host=detector()), 'mmseg', 'mmdet'),
    (lambda: dict(type='T', module=dict(type='mmdet.MaskRCNN')), None,
     'mmdet'),
    # of no host alone: its data are
    (lambda: dict(type='mmfeatjnd.DMVJND'), 'mmpretrain', 'mmpretrain'),
    (lambda: dict(type='Mine'), None, 'mmengine'),
    (lambda: {}, None, 'mmengine'),
])
def test_config_library(model, scope, library):
    cfg = Config(dict(model=model(), default_scope=scope))
    assert config_library(cfg) == library


def test_type_name():
    assert type_name(dict(type='mmdet.MaskRCNN')) == 'MaskRCNN'
    assert type_name(dict(type=mine())) == 'Mine'
    assert type_name(dict(type=featjnd())) == 'build_featjnd'
    assert type_name(dict(type=detector())) == 'MaskRCNN'
    assert type_name({}) is None


def test_build_model_without_a_default_scope():
    model = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.ResNet_CIFAR',
            depth=18,
            stem_channels=4,
            base_channels=4),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=2, in_channels=32))
    built = build_model(Config(dict(model=model, default_scope=None)))
    assert type(built).__module__.startswith('mmpretrain.')


def test_read_config(tmp_path):
    file = tmp_path / 'a.py'
    file.write_text('a = dict(b=1)')
    given = dict(a=dict(b=1))
    for config in (file, str(file), given, Config(given)):
        read = read_config(config)
        assert isinstance(read, Config) and read.a.b == 1
    read.c = 2
    assert 'c' not in given
