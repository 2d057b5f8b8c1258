"""Models by their names."""
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmfeatjnd.apis import (
    ConfigError,
    FeatJNDInferencer,
    find_model,
    get_checkpoint,
    zoo,
)


@pytest.mark.parametrize('name, host', [
    ('featjnd_mask-rcnn_r50', 'mmdet'),
    ('yolox_tiny_8x8_300e_coco', 'mmdet'),
    ('yolox_tiny_8xb8-300e_coco', 'mmdet'),  # the config's own
    ('resnet50_8xb32_in1k', 'mmpretrain'),
    ('pspnet_r50-d8_4xb2-80k_cityscapes-512x1024', 'mmseg')])
def test_names_of_all_indices(name, host):
    model = find_model(name)
    cfg = Config.fromfile(model.config)
    assert cfg.default_scope == host
    assert model.weights.startswith('https://')


def test_unknown_names_are_told_with_near_ones():
    with pytest.raises(ConfigError, match='yolox_tiny_8x8_300e_coco'):
        find_model('yolox_tiny_8x8_300_coco')
    with pytest.raises(ConfigError, match='no model is named'):
        get_checkpoint('nothing')


def test_a_model_without_weights(monkeypatch):
    name = next(m.name for m in zoo._by_name('mmfeatjnd').values()
                if m.weights is None)
    with pytest.raises(ConfigError, match='make them with'):
        get_checkpoint(name)


def test_an_inferencer_by_name(monkeypatch, tmp_path):
    """Of the index it takes config and weights."""
    asked = []
    monkeypatch.setattr(zoo, 'fetch', lambda *args: asked.append(args)
                        or tmp_path / 'gone.pth')
    with DefaultScope.overwrite_default_scope('mmpretrain'), \
            pytest.raises(ValueError, match='gone.pth'):
        FeatJNDInferencer('resnet18_8xb32_in1k')
    (url, digest), = asked
    assert 'resnet18' in url and digest is None
    with pytest.raises(ConfigError, match='which checkpoint'):
        FeatJNDInferencer(Config(dict(model=dict(type='mmdet.X'))))
