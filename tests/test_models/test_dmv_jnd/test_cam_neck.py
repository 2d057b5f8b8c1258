import pytest
import torch
from mmengine.registry import DefaultScope

from mmfeatjnd.functional.dmv_jnd import class_activation_map
from mmfeatjnd.registry import MODELS


def classifier(backbone, **neck):
    torch.manual_seed(0)
    neck = dict(type='mmfeatjnd.CAMNeck', **neck)
    channels = [neck['in_channels'], *neck.get('widths', ())][-1]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=backbone,
                neck=neck,
                head=dict(
                    type='LinearClsHead', num_classes=5,
                    in_channels=channels))).eval()


@pytest.mark.parametrize('backbone, size, neck', [
    (dict(type='AlexNet'), 64, dict(
        in_channels=256, widths=(32, 32), dropout=0.5)),
    (dict(type='VGG', depth=11), 32, dict(in_channels=512, widths=(64, ))),
    (dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8), 32,
     dict(in_channels=64)),
    (dict(
        type='DenseNet',
        arch=dict(growth_rate=8, depths=[2, 2, 2], init_channels=16)), 32,
     dict(in_channels=32)),
])
def test_the_map_explains_the_logit(backbone, size, neck):
    """On each of the paper's families: the mean of a class's map is its logit
    without the bias."""
    model = classifier(backbone, **neck)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        logits = model(x)
        feature = model.neck.feature_map(model.backbone(x))
    label = logits.argmax(1)
    cam = class_activation_map(feature, model.head.fc.weight, label)
    assert cam.shape == (2, 1, *feature.shape[-2:])
    torch.testing.assert_close(
        cam.mean((1, 2, 3)) + model.head.fc.bias[label],
        logits.amax(1), rtol=1e-4, atol=1e-5)


def test_several_outputs_of_a_backbone():
    neck = MODELS.build(dict(type='mmfeatjnd.CAMNeck', in_channels=2))
    first, last = torch.rand(1, 3, 8, 8), torch.rand(1, 2, 4, 4)
    pooled, = neck((first, last))
    torch.testing.assert_close(pooled, last.mean((2, 3)))
    assert torch.equal(neck.feature_map(last), last)
