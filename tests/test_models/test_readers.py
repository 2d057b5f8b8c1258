"""W^T W of the layers behind a split, by hand."""
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from mmfeatjnd.models import neck_at, reader_metrics
from mmfeatjnd.utils import ConfigError


def gram(conv, norm=None, groups=1):
    weight = conv.weight.detach()
    if norm is not None:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = weight * scale.detach()[:, None, None, None]
    return torch.einsum('oikl,ojkl->ij', weight, weight)


def scramble(model):
    """Other statistics and scales than 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for x in (module.running_var, module.weight.data):
                x.uniform_(0.5, 2, generator=generator)


def test_laterals_of_an_fpn(build, batch):
    model = build('detector')
    neck = model.neck
    found = reader_metrics(neck, *batch('detector'))
    assert sorted(found) == [0, 1, 2, 3]
    for i, lateral in enumerate(neck.neck.lateral_convs):
        torch.testing.assert_close(found[i], gram(lateral.conv))


def test_normalization_is_folded(build, batch, configs):
    plain, _ = configs
    model = build(plain('classifier'))
    scramble(model)
    neck = neck_at(model, 'backbone.layer1')
    found = reader_metrics(neck, *batch('classifier'))
    first = model.backbone.layer2[0]
    torch.testing.assert_close(
        found[0],
        gram(first.conv1, first.norm1) + gram(*first.downsample))
    assert not any(m._forward_hooks for m in model.modules())


def test_a_level_within_a_concatenation():
    cfg = get_config('mmdet::yolox/yolox_nano_8xb8-300e_coco.py').model
    cfg.backbone.update(deepen_factor=0.33, widen_factor=0.125)
    with DefaultScope.overwrite_default_scope('mmdet'):
        cfg.neck.update(in_channels=[32, 64, 128], out_channels=32)
        cfg.bbox_head.update(in_channels=32, feat_channels=32)
        cfg.data_preprocessor = dict(type='DetDataPreprocessor')
        torch.manual_seed(0)
        model = MODELS.build(cfg).eval()
    scramble(model)
    from mmdet.structures import DetDataSample
    sample = DetDataSample(metainfo=dict(
        img_shape=(64, 64), ori_shape=(64, 64), batch_input_shape=(64, 64),
        pad_shape=(64, 64), scale_factor=(1., 1.)))
    found = reader_metrics(neck_at(model), torch.randn(1, 3, 64, 64), [sample])
    reduce = model.neck.reduce_layers[0]
    torch.testing.assert_close(found[2], gram(reduce.conv, reduce.bn))
    csp = model.neck.top_down_blocks[0]
    both = sum(gram(c.conv, c.bn) for c in (csp.main_conv, csp.short_conv))
    # behind what comes from above
    torch.testing.assert_close(found[1], both[64:, 64:])


def test_what_no_layer_reads(build, batch, configs):
    plain, _ = configs
    model = build(plain('classifier'))
    # pooled first, by its mean
    with pytest.raises(ConfigError, match='level 0.*read by no convolution'):
        reader_metrics(neck_at(model, 'backbone.layer3'), *batch('classifier'))
