"""FeatJND on stock configs, without writing one."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config

from mmfeatjnd.apis import ConfigError, add_featjnd, build_model
from mmfeatjnd.models import FeatJNDMixin, find_neck

SCOPES = dict(classifier='mmpretrain', segmentor='mmseg', detector='mmdet')


def config(configs, kind):
    """A plain host as its own library would write it."""
    model = configs[0](kind)
    model['type'] = model['type'].rpartition('.')[2]
    return Config(dict(
        default_scope=SCOPES[kind], model=model, load_from='x.pth',
        train_cfg=dict(by_epoch=True, max_epochs=3),
        param_scheduler=[dict(type='MultiStepLR', milestones=[2])]))


@pytest.mark.parametrize('kind, split, channels', [
    ('classifier', 'backbone', [32]),
    ('classifier', 'backbone.layer2', [16]),
    ('segmentor', 'backbone', [8, 16, 32, 64]),
    ('detector', 'backbone', [8, 16, 32, 64]),
    ('detector', 'neck', [16] * 5),
])
def test_the_model_is_the_host_with_featjnd(configs, batch, equal, kind, split,
                                            channels):
    cfg = config(configs, kind)
    before = copy.deepcopy(cfg.to_dict())
    found = add_featjnd(cfg, split)
    assert cfg.to_dict() == before
    assert list(found.model.neck.in_channels) == channels
    assert found.load_from == 'x.pth'
    assert found.train_cfg.type == 'IterBasedTrainLoop'
    assert 'max_epochs' not in found.train_cfg
    model, host = build_model(found).eval(), build_model(cfg).eval()
    assert isinstance(model, FeatJNDMixin)
    assert all(n.startswith('neck.estimators.')
               for n, p in model.named_parameters() if p.requires_grad)
    model.load_state_dict(host.state_dict(), strict=False)
    inputs, samples = batch(kind)
    with torch.no_grad():
        ours, theirs = (
            [s.to_dict() for s in m.predict(inputs, copy.deepcopy(samples))]
            for m in (model, host))
    assert str(ours) == str(theirs)
    assert torch.isfinite(sum(
        v for k, v in model.train().loss(inputs, samples).items()
        if 'loss' in k))


def test_arguments_of_the_neck(configs):
    estimator = dict(type='mmfeatjnd.ConvEstimator', hidden_channels=4)
    cfg = add_featjnd(config(configs, 'detector'), levels=[1, 3],
                      estimator=estimator, in_channels=[8, 16, 32, 64])
    neck = find_neck(build_model(cfg))
    assert neck.levels == (1, 3)
    assert len(neck.estimators) == 2
    assert neck.settings()['estimator'] == estimator


def test_what_cannot_be(configs):
    cfg = config(configs, 'classifier')
    with pytest.raises(ConfigError, match='has FeatJND already'):
        add_featjnd(add_featjnd(cfg))
    with pytest.raises(ConfigError, match='layer9'):
        add_featjnd(cfg, 'backbone.layer9')
    # behind what a dry run reaches
    with pytest.raises(ConfigError, match=r'Give in_channels'):
        add_featjnd(cfg, 'head')


@pytest.mark.parametrize('name, channels', [
    ('mmpretrain::mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py', [576]),
    ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', [768]),
    ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
     [256, 512, 1024, 2048]),
    ('mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py', [1024]),
    ('mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
     [256, 512, 1024, 2048]),
])
def test_stock_configs(name, channels):
    cfg = add_featjnd(get_config(name))
    assert list(cfg.model.neck.in_channels) == channels
    assert 'param_scheduler' in cfg and cfg.train_dataloader


def test_tokens_have_their_estimator():
    cfg = add_featjnd(get_config(
        'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k-384px.py'))
    assert cfg.model.neck.estimator.type == 'mmfeatjnd.TokenEstimator'
    assert list(cfg.model.neck.in_channels) == [768]
