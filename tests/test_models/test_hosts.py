"""FeatJND on a tiny version of every kind of host."""
import copy
import logging
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

import mmfeatjnd  # noqa: F401  lets mmseg's configs be found
from mmfeatjnd.apis.metric import metric_of
from mmfeatjnd.apis.plan import transforms_of
from mmfeatjnd.coding import encode_image
from mmfeatjnd.functional import nats
from mmfeatjnd.hosts import NoLikelihood, adapter_of, sharing_prefix
from mmfeatjnd.models import (
    Perturbation,
    PrefixReplay,
    Quantization,
    Run,
    TailMemo,
    check_faults,
    host_hash,
    neck_at,
)
from mmfeatjnd.models.codec_plan import CodecPlan, LevelCode, rounded_part
from mmfeatjnd.models.forward_runs import every_forward
from mmfeatjnd.models.sensitivity import task_gradients, task_sensitivity
from mmfeatjnd.models.splits import Passage
from mmfeatjnd.registry import MODELS as OUR_MODELS

SIZE = 64  # of the images, in pixels
CLASSES = 3
CONV = dict(
    type='mmfeatjnd.ConvEstimator', hidden_channels=8, mode='signed')
TOKEN = dict(
    type='mmfeatjnd.TokenEstimator', hidden_channels=8, mode='signed')


# ---------------------------------------------------------------- the hosts
def stock(path):
    """The stock model, which must not load pretrained weights."""
    model = get_config(path).model.to_dict()

    def strip(node):
        if isinstance(node, dict):
            init = node.get('init_cfg')
            if isinstance(init, dict) and init['type'] == 'Pretrained':
                del node['init_cfg']
            node.pop('pretrained', None)
            node.pop('_scope_', None)
            node = node.values()
        if isinstance(node, (dict, list, type({}.values()))):
            for child in node:
                strip(child)

    strip(model)
    return ConfigDict(model)


def small_resnet(cfg):
    cfg.backbone.update(depth=18, base_channels=8, stem_channels=8)


def small_rpn(cfg, channels):
    cfg.rpn_head.update(in_channels=channels, feat_channels=8)
    cfg.rpn_head.anchor_generator.scales = [2]
    cfg.train_cfg.rpn.sampler.num = 16
    cfg.train_cfg.rpn_proposal.update(nms_pre=32, max_per_img=12)
    cfg.train_cfg.rcnn.sampler.num = 12
    cfg.test_cfg.rpn.update(nms_pre=32, max_per_img=12)
    cfg.test_cfg.rcnn.update(max_per_img=5, score_thr=0.0)
    if cfg.test_cfg.rcnn.get('mask_thr_binary'):
        cfg.test_cfg.rcnn.mask_thr_binary = -1  # soft masks


def small_roi(cfg):
    roi = cfg.roi_head
    roi.bbox_roi_extractor.out_channels = 16
    roi.bbox_head.update(
        in_channels=16, fc_out_channels=16, num_classes=CLASSES)
    if 'mask_head' in roi:
        roi.mask_roi_extractor.out_channels = 16
        roi.mask_head.update(
            in_channels=16,
            conv_out_channels=16,
            num_convs=1,
            num_classes=CLASSES)


def two_stage(path):
    cfg = stock(path)
    if cfg.backbone.type == 'ResNet':
        small_resnet(cfg)
    else:
        cfg.backbone.update(
            embed_dims=8, depths=[1] * 4, num_heads=[1, 2, 2, 4])
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    small_rpn(cfg, 16)
    small_roi(cfg)
    return cfg, dict(estimator=CONV)


def c4():
    cfg = stock('mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py')
    # the widths of the shared head are those of the stock ResNet
    cfg.backbone.depth = 18
    cfg.roi_head.shared_head.depth = 18
    small_rpn(cfg, 256)
    roi = cfg.roi_head
    roi.bbox_roi_extractor.out_channels = 256
    roi.bbox_head.update(in_channels=512, num_classes=CLASSES)
    roi.mask_head.update(
        in_channels=512, conv_out_channels=8, num_classes=CLASSES)
    return cfg, dict(estimator=CONV, in_channels=256)


def retinanet():
    cfg = stock('mmdet::_base_/models/retinanet_r50_fpn.py')
    small_resnet(cfg)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.bbox_head.update(
        in_channels=16, feat_channels=16, stacked_convs=1, num_classes=CLASSES)
    cfg.test_cfg.update(max_per_img=5, score_thr=0.0)
    return cfg, dict(estimator=CONV, levels=[1, 2, 3])


def one_stage(path):
    """Others whose FPN begins at the second level."""
    cfg = stock(path)
    small_resnet(cfg)
    width = 64  # two channels for each group of the heads' norms
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=width)
    cfg.bbox_head.update(
        in_channels=width,
        feat_channels=width,
        stacked_convs=1,
        num_classes=CLASSES)
    cfg.test_cfg.update(max_per_img=5, score_thr=0.0)
    return cfg, dict(estimator=CONV)


def yolox():
    cfg = stock('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py')
    cfg.data_preprocessor.batch_augments = None
    cfg.backbone.widen_factor = 0.125
    cfg.neck.update(
        in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    cfg.bbox_head.update(
        in_channels=16, feat_channels=16, num_classes=CLASSES)
    cfg.test_cfg.update(score_thr=0.0, max_per_img=5)
    return cfg, dict(estimator=CONV, split='neck')


def transformer(path, levels):
    cfg = stock(path)
    small_resnet(cfg)
    cfg.num_queries = 6
    cfg.neck.update(in_channels=[8, 16, 32, 64][-levels:], out_channels=16)
    if cfg.neck.norm_cfg:
        cfg.neck.norm_cfg.num_groups = 2
    for name, layers in (('encoder', 1), ('decoder', 2)):
        part = cfg[name]
        part.num_layers = layers
        for key, value in part.layer_cfg.items():
            if key.endswith('attn_cfg'):
                value.update(embed_dims=16, num_heads=2)
            elif key == 'ffn_cfg':
                value.update(embed_dims=16, feedforward_channels=16)
    cfg.positional_encoding.num_feats = 8
    cfg.bbox_head.update(embed_dims=16, num_classes=CLASSES)
    if 'dn_cfg' in cfg:
        cfg.dn_cfg.group_cfg.num_dn_queries = 8
    cfg.test_cfg.max_per_img = 5
    return cfg, dict(estimator=CONV)


def resnet():
    cfg = stock('mmpretrain::_base_/models/resnet18.py')
    small_resnet(cfg)
    cfg.head.update(in_channels=64, num_classes=CLASSES, topk=(1, ))
    return cfg, dict(
        estimator=CONV, split='backbone.layer3', in_channels=32)


def vit(out_type, **neck):
    cfg = stock('mmpretrain::_base_/models/vit-base-p16.py')
    cfg.backbone.update(
        arch=dict(
            embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=16),
        img_size=SIZE,
        out_type=out_type)
    cfg.head.update(num_classes=CLASSES, in_channels=16)
    if out_type != 'cls_token':
        cfg.neck = dict(
            type='GlobalAveragePooling', dim=1 if out_type == 'raw' else 2)
        tokens = (SIZE // 16)**2 + 1
        cfg.head = dict(
            type='LinearClsHead',
            num_classes=CLASSES,
            # (B, N, C) is averaged over C
            in_channels=tokens if out_type == 'raw' else 16)
    neck.setdefault('estimator', TOKEN)
    return cfg, dict(in_channels=16, **neck)


def sam():
    cfg = stock('mmpretrain::sam/vit-base-p16_sam_headless.py')
    cfg.backbone.update(
        arch=dict(
            embed_dims=16,
            num_layers=3,
            num_heads=2,
            feedforward_channels=16,
            global_attn_indexes=[2]),
        img_size=SIZE,
        patch_size=8,
        window_size=3,
        out_channels=8)
    cfg.neck = dict(type='GlobalAveragePooling')
    cfg.head = dict(type='LinearClsHead', num_classes=CLASSES, in_channels=8)
    return cfg, dict(
        estimator=CONV, split='backbone.layers.1', in_channels=16)


def swin():
    cfg = stock('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py')
    cfg.backbone.update(
        arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]),
        img_size=SIZE,
        pad_small_map=True)
    cfg.head.update(in_channels=64, num_classes=CLASSES)
    cfg.pop('train_cfg')
    return cfg, dict(
        estimator=TOKEN, split='backbone.stages.2', in_channels=32)


def pspnet():
    cfg = stock('mmseg::_base_/models/pspnet_r50-d8.py')
    small_resnet(cfg)
    cfg.data_preprocessor.size = (SIZE, SIZE)
    cfg.decode_head.update(in_channels=64, channels=8, num_classes=CLASSES)
    cfg.auxiliary_head.update(in_channels=32, channels=8, num_classes=CLASSES)
    return cfg, dict(
        estimator=CONV, in_channels=[8, 16, 32, 64], levels=[3])


def segformer():
    cfg = stock('mmseg::_base_/models/segformer_mit-b0.py')
    cfg.data_preprocessor.size = (SIZE, SIZE)
    cfg.backbone.update(
        embed_dims=8, num_layers=[1] * 4, num_heads=[1, 1, 2, 2])
    cfg.decode_head.update(
        in_channels=[8, 8, 16, 16], channels=8, num_classes=CLASSES)
    return cfg, dict(estimator=CONV, in_channels=[8, 8, 16, 16])


#: name -> () -> (config of the plain host, fields of FeatJNDNeck)
HOSTS = {
    'RetinaNet': retinanet,
    'Faster R-CNN':
    lambda: two_stage('mmdet::_base_/models/faster-rcnn_r50_fpn.py'),
    'Mask R-CNN':
    lambda: two_stage('mmdet::_base_/models/mask-rcnn_r50_fpn.py'),
    'Mask R-CNN Swin': lambda: two_stage(
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'),
    'Mask R-CNN C4': c4,
    'YOLOX': yolox,
    'DETR': lambda: transformer('mmdet::detr/detr_r50_8xb2-150e_coco.py', 1),
    'DINO':
    lambda: transformer('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 3),
    'ResNet': resnet,
    'ViT featmap': lambda: vit('featmap', estimator=CONV),
    'ViT raw': lambda: vit('raw'),
    'ViT cls_token': lambda: vit('cls_token'),
    'ViT block': lambda: vit('cls_token', split='backbone.layers.1'),
    'ViT SAM': sam,
    'Swin': swin,
    'PSPNet': pspnet,
    'SegFormer': segformer,
}


def library(name):
    if name in ('PSPNet', 'SegFormer'):
        return 'mmseg'
    return 'mmpretrain' if name.startswith(
        ('ResNet', 'ViT', 'Swin')) else 'mmdet'


def build_host(name):
    cfg, _ = HOSTS[name]()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(library(name)):
        host = MODELS.build(cfg)
        logging.disable(logging.WARNING)  # one message for each parameter
        host.init_weights()
        logging.disable(logging.NOTSET)
    generator = torch.Generator().manual_seed(0)
    for weight in host.parameters():
        if weight.dim() > 1 and not weight.any():  # as in ViT's last layer
            torch.nn.init.normal_(weight, 0, 0.1, generator=generator)
    for module in host.modules():  # not all statistics alike
        if hasattr(module, 'running_var'):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
    # frozen: torch.matmul picks its kernel by `requires_grad`
    return host.requires_grad_(False).eval()


def build_featjnd(name, host=None, discrepancy=None, **neck):
    cfg, fields = HOSTS[name]()
    fields.update(neck)
    cfg.neck = dict(
        type='mmfeatjnd.FeatJNDNeck', neck=cfg.get('neck'), **fields)
    cfg.host = f'{library(name)}.{cfg.type}'
    cfg.type = 'mmfeatjnd.FeatJND'
    if discrepancy is None and library(name) == 'mmdet':
        # with random weights no detection is certain
        discrepancy = dict(type='mmfeatjnd.PseudoGroundTruth', score_thr=0.0)
    cfg.discrepancy = discrepancy
    with DefaultScope.overwrite_default_scope(library(name)):
        model = OUR_MODELS.build(cfg)
    if host is not None:
        result = model.load_state_dict(
            copy.copy(host.state_dict()), strict=False)
        # the estimators begin anew, which is no fault of the checkpoint
        assert not result.unexpected_keys and not result.missing_keys
    for estimator in model.neck.estimators:
        estimator.channels.updates.fill_(1)
        estimator.initial.fill_(1)  # taken for trained
    return model.eval()


# ---------------------------------------------------------------- the images
def make_batch(name, size=SIZE, num=2):
    """What a dataloader of the host's library gives."""
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(
            256, (3, size, size), dtype=torch.uint8, generator=generator)
        for _ in range(num)
    ]
    meta = dict(
        img_shape=(size, size), ori_shape=(size, size), scale_factor=(1., 1.))
    make = globals()[f'{library(name)}_sample']
    return dict(
        inputs=images,
        data_samples=[make(size, dict(meta, img_id=i)) for i in range(num)])


def mmdet_sample(size, meta):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    sample = DetDataSample(metainfo=meta)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.9, 0.8]]) * size
    masks = torch.zeros(2, size, size, dtype=torch.uint8)
    masks[0, :size // 2] = 1
    masks[1, :, size // 2:] = 1
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([0, 2]),
        masks=BitmapMasks(masks.numpy(), size, size))
    return sample


def mmpretrain_sample(size, meta):
    from mmpretrain.structures import DataSample
    return DataSample(metainfo=meta).set_gt_label(meta['img_id'] % CLASSES)


def mmseg_sample(size, meta):
    from mmseg.structures import SegDataSample
    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(
        data=torch.arange(size).div(8).int()[None, :, None].repeat(
            1, 1, size).remainder(CLASSES).long())
    return sample


def predict(model, name, operation=None, batch=None):
    """All predicted tensors of a test step."""
    return measure(model, name, operation, batch)[0]


def measure(model, name, operation=None, batch=None):
    """All predicted tensors of a test step, and the run."""
    batch = copy.deepcopy(batch or make_batch(name))
    run = None
    with torch.no_grad():
        if operation is None:
            results = model.test_step(batch)
        else:
            with every_forward(model.featjnd_neck, operation) as runs:
                results = model.test_step(batch)
            run, = runs
            check_faults(runs)
    tensors = []
    for result in results:
        if library(name) == 'mmdet':
            pred = result.pred_instances
            tensors += [pred.bboxes, pred.scores, pred.labels]
            if 'masks' in pred:
                tensors.append(torch.as_tensor(pred.masks))
        elif library(name) == 'mmseg':
            tensors.append(result.seg_logits.data)
        else:
            tensors.append(result.pred_score)
    return tensors, run


def same(one, other):
    return len(one) == len(other) and all(
        map(lambda a, b: a.shape == b.shape and torch.equal(a, b), one, other))


def hooks_of(model):
    return [(name, len(module._forward_hooks),
             len(module._forward_pre_hooks), 'forward' in vars(module))
            for name, module in model.named_modules()]


@pytest.fixture(scope='module', params=HOSTS)
def built(request):
    """(name, plain host, the same host with FeatJND)."""
    host = build_host(request.param)
    return request.param, host, build_featjnd(request.param, host)


# ---------------------------------------------------------------- every host
def test_clean_prediction_is_the_hosts(built):
    name, host, model = built
    before = hooks_of(model)
    expected = predict(host, name)
    assert any(t.numel() for t in expected)
    assert all(t.isfinite().all() for t in expected)
    assert same(predict(model, name), expected)
    assert hooks_of(model) == before
    # its class, attributes and keys are the host's
    assert isinstance(model, type(host))
    assert type(model).__name__ == f'FeatJND{type(host).__name__}'


@pytest.mark.parametrize('distortion', ['gaussian', 'featjnd'])
def test_perturbed_prediction(built, distortion):
    name, host, model = built
    before = hooks_of(model)
    clean = predict(model, name)
    operation = Perturbation(distortion, 1.0, seed=3)
    first, run = measure(model, name, operation)
    assert run.measured['nrmse'].shape == (2, )
    torch.testing.assert_close(
        run.measured['nrmse'], torch.ones(2).double(), rtol=1e-5, atol=1e-5)
    assert not same(first, clean)
    assert all(t.isfinite().all() for t in first)
    assert same(predict(model, name, operation), first)
    assert hooks_of(model) == before
    assert same(predict(model, name), clean)


def test_train_step(built):
    name, host, model = built
    model.train()
    before = hooks_of(model)
    parameters = {k: v for k, v in model.named_parameters()}
    state = {
        k: v.clone()
        for k, v in model.state_dict().items()
        if not k.startswith(('neck.estimators', 'featjnd_'))
    }
    trained = [p for p in parameters.values() if p.requires_grad]
    optimizer = OptimWrapper(torch.optim.SGD(trained, lr=0.0))
    # the gradients of the step are those of its losses
    losses = []
    update = optimizer.update_params
    optimizer.update_params = lambda loss: losses.append(loss) or update(
        loss, zero_kwargs=dict(set_to_none=False))
    optimizer.zero_grad = lambda **kwargs: None  # keep them
    log = model.train_step(copy.deepcopy(make_batch(name)), optimizer)
    model.eval()
    assert {'loss', 'loss_jnd_discrepancy', 'loss_jnd_magnitude'} <= set(log)
    assert all(torch.isfinite(torch.as_tensor(v)).all() for v in log.values())
    for key, value in parameters.items():
        estimator = key.startswith('neck.estimators.')
        assert value.requires_grad == estimator
        assert (value.grad is not None) == estimator, key
        if estimator:
            assert value.grad.isfinite().all()
    for estimator in model.neck.estimators:
        assert estimator.channels.updates == 2
        assert estimator.expand.weight.grad.abs().sum() > 0
        for p in estimator.parameters():
            p.grad = None
        estimator.channels.updates.fill_(1)
        estimator.channels.mean_square.fill_(1)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert hooks_of(model) == before


def test_discrepancy_reaches_every_estimator(built):
    """The magnitude alone would let a level grow that nobody reads."""
    name, host, model = built
    data = model.data_preprocessor(copy.deepcopy(make_batch(name)), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    grads = torch.autograd.grad(
        losses['loss_jnd_discrepancy'],
        [e.expand.weight for e in model.neck.estimators],
        allow_unused=True)
    assert all(g is not None for g in grads)


def first_module(model):
    """Deep inside the backbone, long before the split, run once a pass."""
    for name, module in model.backbone.named_modules():
        if '.' in name and list(module.parameters(recurse=False)):
            return module


def test_prefix_changes_nothing(built):
    """Replaying what lies before the split: the same bits, less work."""
    name, host, model = built
    data = model.data_preprocessor(copy.deepcopy(make_batch(name)), False)
    inputs, samples = data['inputs'], data['data_samples']
    operation = Perturbation('uniform-noise', 0.7)
    neck = model.featjnd_neck
    runs = []
    first = first_module(model)
    handle = first.register_forward_hook(lambda *args: runs.append(1))

    def passes():
        """Clean, perturbed, clean, from the same state."""
        task = copy.deepcopy(model.featjnd_discrepancy)
        with torch.no_grad():
            reference = task.reference(model, inputs, samples)
            with neck.run(operation, samples):
                perturbed = task(model, inputs, samples, reference)
            clean = task(model, inputs, samples, reference)
        return torch.stack([perturbed, clean])

    with sharing_prefix(model, PrefixReplay(neck)):
        shared = passes()
    once = len(runs)
    runs.clear()
    full = passes()
    handle.remove()
    assert torch.equal(shared, full)
    assert once == 1 and len(runs) >= 3
    # the perturbed pass is perturbed, the clean one is not
    assert shared[0].abs() > 1e-6 and shared[1].abs() < 1e-5


def test_sensitivity(built):
    name, host, model = built
    data = model.data_preprocessor(copy.deepcopy(make_batch(name)), False)
    before = hooks_of(model)
    result = task_sensitivity(model.neck, data['inputs'],
                              data['data_samples'])
    assert set(result) == set(model.neck.levels)
    for level, (value, ) in result.items():
        channels = model.neck.in_channels[level]
        last = value.dim() == 3 or name == 'ViT SAM'
        assert value.size(-1 if last else 1) == channels
        assert value.isfinite().all() and value.min() >= 0
    assert hooks_of(model) == before
    assert all(p.grad is None for p in model.parameters())


# --------------------------------------------------- levels that nobody reads
#: Whose FPN leaves the first level of the backbone alone.
START_LEVEL_1 = {
    'RetinaNet': retinanet,
    'ATSS': lambda: one_stage('mmdet::atss/atss_r50_fpn_1x_coco.py'),
    'FCOS': lambda: one_stage('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'
                              '.py'),
    'GFL': lambda: one_stage('mmdet::gfl/gfl_r50_fpn_1x_coco.py'),
}
OPERATIONS = {
    'one-step': lambda: Quantization('one-step', scale=0.5, coded=True),
    'featjnd': lambda: Quantization('featjnd', bits=1.0, coded=True),
    'gaussian': lambda: Perturbation('gaussian', 0.5),
}


# ----------------------------------------------------- what the hosts say
def cascade():
    cfg = stock('mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py')
    small_resnet(cfg)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    stages = cfg.train_cfg.rcnn
    cfg.train_cfg.rcnn = stages[0]  # whose samplers are made small
    small_rpn(cfg, 16)
    cfg.train_cfg.rcnn = stages
    roi = cfg.roi_head
    for part in (roi.bbox_roi_extractor, roi.mask_roi_extractor):
        part.out_channels = 16
    for part in roi.bbox_head:
        part.update(in_channels=16, fc_out_channels=16, num_classes=CLASSES)
    roi.mask_head.update(
        in_channels=16, conv_out_channels=8, num_convs=1, num_classes=CLASSES)
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    return cfg, dict(estimator=CONV)


def yolov3():
    cfg = stock('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    cfg.bbox_head.num_classes = CLASSES
    cfg.test_cfg.update(max_per_img=5, score_thr=0.0)
    return cfg, dict(estimator=CONV, split='neck')


def rtmdet():
    cfg = stock('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    cfg.backbone.update(widen_factor=0.125, init_cfg=None)
    cfg.neck.update(
        in_channels=[32, 64, 128], out_channels=16, num_csp_blocks=1)
    cfg.bbox_head.update(
        in_channels=16, feat_channels=16, num_classes=CLASSES)
    cfg.test_cfg.update(max_per_img=5, score_thr=0.0)
    return cfg, dict(estimator=CONV, split='neck')


#: Families whose answer has a form of its own, beside HOSTS.
SAYING = {
    **START_LEVEL_1, 'Cascade Mask R-CNN': cascade, 'YOLOv3': yolov3,
    'RTMDet': rtmdet,
    'FoveaBox': lambda: one_stage('mmdet::foveabox/fovea_r50_fpn_4xb4-1x_coco'
                                  '.py'),
    'VFNet': lambda: one_stage('mmdet::vfnet/vfnet_r50_fpn_1x_coco.py'),
}


@pytest.mark.parametrize('name', [*HOSTS, *(n for n in SAYING
                                            if n not in HOSTS)])
def test_nats_are_what_the_gradients_say(name, monkeypatch):
    """E[(g d)^2] of the drawn gradients g is d F d, of which a small change d
    costs the half: by the heads' real outputs."""
    for key, make in SAYING.items():
        monkeypatch.setitem(HOSTS, key, make)
    model = build_featjnd(name, build_host(name))
    neck, adapter = model.neck, adapter_of(model)
    data = model.data_preprocessor(copy.deepcopy(make_batch(name)), False)
    inputs, samples = data['inputs'], data['data_samples']
    with torch.no_grad():
        clean = adapter.likelihood(model, inputs, samples)
        again = adapter.likelihood(model, inputs, samples, clean.proposals)
    assert clean.terms
    assert nats(clean.terms, again.terms, 2).tolist() == [0, 0]
    features, gradients = task_gradients(neck, inputs, samples, draws=200)
    generator = torch.Generator().manual_seed(0)
    noise = {
        i: x[0].std() * torch.randn(x[0].shape, generator=generator)
        for i, x in features.items()
    }
    # of each image, of each draw
    along = torch.stack([
        sum((found[i][0] * d).flatten(1).sum(1) for i, d in noise.items())
        for found in gradients
    ])
    expected = along.square().mean(0) / 2

    def cost(scale):
        with torch.no_grad(), neck.changing(
                lambda x, i: x + scale * noise[i] if i in noise else x):
            changed = adapter.likelihood(model, inputs, samples,
                                         clean.proposals)
        return nats(clean.terms, changed.terms, 2)

    # so small that only the curvature counts, and no rounding
    scale = float((1e-8 / expected.max()).sqrt().clamp(1e-5, 1))
    both = (cost(scale) + cost(-scale)) / 2 / scale**2
    assert (expected > 0).all() and both.isfinite().all()
    torch.testing.assert_close(both, expected, rtol=0.5, atol=0)


def test_images_do_not_say_more_in_a_batch():
    name = 'Mask R-CNN'
    model = build_featjnd(name, build_host(name))
    data = model.data_preprocessor(copy.deepcopy(make_batch(name)), False)
    inputs, samples = data['inputs'], data['data_samples']

    def cost(rows):
        adapter = adapter_of(model)
        own = inputs[rows], [samples[i] for i in rows]
        with torch.no_grad():
            clean = adapter.likelihood(model, *own)
            with model.neck.changing(lambda x, i: 1.5 * x):
                changed = adapter.likelihood(model, *own, clean.proposals)
        return nats(clean.terms, changed.terms, len(rows))

    alone = torch.cat([cost([0]), cost([1])])
    torch.testing.assert_close(cost([0, 1]), alone, rtol=1e-3, atol=0)


def test_heads_that_nobody_knows():
    """Refused by their class, before anything runs, and a child of a known
    class in another library is its parent."""
    host = build_host('RetinaNet')
    adapter_of(host).check_likelihood(host)
    kind = type(host.bbox_head)
    host.bbox_head.__class__ = type('MyHead', (kind, ), {})
    adapter_of(host).check_likelihood(host)
    host.bbox_head.__class__ = type('OddHead', (kind, ),
                                    dict(__module__='mmdet.odd'))
    with pytest.raises(NoLikelihood, match='OddHead'):
        adapter_of(host).check_likelihood(host)


@pytest.mark.parametrize('name', START_LEVEL_1)
def test_a_level_that_nothing_reads_costs_nothing(name, monkeypatch):
    """Without ``levels`` all is as with the levels that the host reads."""
    monkeypatch.setitem(HOSTS, name, START_LEVEL_1[name])
    host = build_host(name)
    estimator = dict(CONV, mode='envelope')
    models = [
        build_featjnd(name, host, estimator=estimator, levels=levels)
        for levels in (None, [1, 2, 3])
    ]
    for one, other in zip((models[0].neck.estimator_of(i) for i in (1, 2, 3)),
                          models[1].neck.estimators):
        other.load_state_dict(one.state_dict())
    for make in OPERATIONS.values():
        (found, run), (expected, other) = (
            measure(m, name, make()) for m in models)
        assert same(found, expected)
        assert not same(found, predict(host, name))
        assert run.measured.keys() == other.measured.keys()
        for key, value in other.measured.items():
            assert torch.equal(run.measured[key], value), key
    # 16 + 4 + 1 tokens of 16, 32 and 64 channels at most
    assert run.neck.levels == (0, 1, 2, 3)
    assert run.neck.read_levels == run.neck.active_levels == (1, 2, 3)


def test_unread_levels_are_not_trained(monkeypatch):
    monkeypatch.setitem(HOSTS, 'RetinaNet', retinanet)
    model = build_featjnd('RetinaNet', build_host('RetinaNet'), levels=None)
    for estimator in model.neck.estimators:
        estimator.channels.updates.zero_()
        estimator.initial.zero_()
    model.train()
    optimizer = torch.optim.Adam(model.neck.estimators.parameters(), 1e-2)
    losses = model.loss(**model.data_preprocessor(
        make_batch('RetinaNet'), True))
    model.parse_losses(losses)[0].backward()
    optimizer.step()
    # DDP waits for a gradient of every parameter
    assert all(p.grad is not None for p in model.neck.estimators.parameters())
    assert [e.trained for e in model.neck.estimators] == [
        False, True, True, True]
    Perturbation('featjnd', 0.5).check(model.neck)
    predict(model, 'RetinaNet', Perturbation('featjnd', 0.5))


def test_every_level_of_the_others_is_read(built):
    name, host, model = built
    predict(model, name, Perturbation('gaussian', 0.5))
    assert model.neck.read_levels == model.neck.levels


# --------------------------------------------------------------- channels last
def features_of(model, name, operation):
    """What the split emits in a clean pass, and after the operation."""
    clean, changed = [], []
    module = model.backbone.layers[1]
    # of these one runs before the operation, one behind it
    handles = [
        module.register_forward_hook(
            lambda m, args, output: clean.append(output.clone())),
        model.backbone.layers[2].register_forward_pre_hook(
            lambda m, args: changed.append(args[0].clone()))
    ]
    measured = measure(model, name, operation)[1].measured
    for handle in handles:
        handle.remove()
    return clean[-1], changed[-1], measured


def test_channels_last():
    """(B, H, W, C), as SAM's and ViTDet's layers emit it."""
    model = build_featjnd('ViT SAM', build_host('ViT SAM'))
    assert model.neck.estimators[0].expand.weight.shape[0] == 16
    clean, changed, measured = features_of(
        model, 'ViT SAM', Perturbation('permuted', 0.7))
    assert clean.shape == changed.shape == (2, 8, 8, 16)
    delta = changed - clean
    ratio = (delta.flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1))
    torch.testing.assert_close(ratio, torch.full((2, ), 0.7))
    torch.testing.assert_close(measured['nrmse'], ratio.double())
    # the estimator's map, its tokens permuted: whole rows of 16 channels
    with torch.no_grad():
        jnd = model.neck.estimators[0](clean.permute(0, 3, 1, 2))
    jnd = jnd.permute(0, 2, 3, 1).flatten(1, 2)
    norms = [x.norm(dim=2).sort(dim=1).values
             for x in (jnd, delta.flatten(1, 2))]
    scale = norms[1].norm(dim=1) / norms[0].norm(dim=1)
    torch.testing.assert_close(norms[1], norms[0] * scale[:, None])


def test_steps_of_channels_last():
    """One step for each of the 16 channels, not for each row of the image."""
    model = build_featjnd(
        'ViT SAM', build_host('ViT SAM'),
        estimator=dict(CONV, mode='envelope'))
    torch.nn.init.normal_(model.neck.estimators[0].expand.weight)
    _, run = measure(model, 'ViT SAM', Quantization(
        dict(type='featjnd', granularity='channel'), coded=True))
    (_, quantized), = run.kept
    assert quantized.symbols.shape == (2, 16, 8, 8)
    assert quantized.steps.channel.shape == (2, 16, 1, 1)
    assert run.measured['elements'].tolist() == [1024, 1024]


@pytest.mark.parametrize('channels, emits', [(8, 16), (17, 16), (4, 16)])
def test_a_wrong_number_is_refused_and_the_right_one_told(channels, emits):
    """8 is the height and the width, which was taken for channels."""
    model = build_featjnd(
        'ViT SAM', build_host('ViT SAM'), in_channels=channels)
    for run in (
            lambda: predict(model, 'ViT SAM', Perturbation('gaussian', 0.7)),
            lambda: model.loss(**model.data_preprocessor(
                make_batch('ViT SAM'), True))):
        with pytest.raises(ValueError, match=f'emits {emits} channels.*'
                           f'in_channels=.{channels}.*Set in_channels'):
            run()


@pytest.mark.parametrize('size', [64, 128, 256])
def test_a_map_as_wide_as_an_inner_layer_has_channels(size):
    """The last layer in order, which is not the last to run, emits 16
    channels; the map is 8, 16 or 32 tokens wide."""
    model = build_featjnd(
        'YOLOX', build_host('YOLOX'), split='backbone.stage2', in_channels=32)
    _, run = measure(model, 'YOLOX', Quantization('one-step'),
                     make_batch('YOLOX', size))
    assert run.kept[0][1].symbols.shape == (2, 32, size // 8, size // 8)


def test_a_declared_layout():
    host = build_host('ViT SAM')
    found, declared = (
        measure(build_featjnd('ViT SAM', host, layout=layout), 'ViT SAM',
                Perturbation('gaussian', 0.7))[0] for layout in (None, 'NHWC'))
    assert same(found, declared)
    with pytest.raises(ValueError, match="8 channels.*layout NCHW.*'NHWC'"):
        predict(build_featjnd('ViT SAM', host, layout='NCHW'), 'ViT SAM',
                Perturbation('gaussian', 0.7))
    with pytest.raises(ValueError, match="layout must be one of.*'CHW'"):
        build_featjnd('ViT SAM', layout='CHW')


@pytest.mark.parametrize('stage', [0, 1, 2, 3])
def test_stages_of_swin(stage):
    """Tokens, half as many a side and of twice the channels each time."""
    channels = [8, 16, 32, 64][stage]
    name, host = 'Swin', build_host('Swin')
    model = build_featjnd(
        name, host, split=f'backbone.stages.{stage}', in_channels=channels)
    _, run = measure(model, name, Quantization('one-step', coded=True))
    (_, quantized), = run.kept
    tokens = [256, 64, 16, 4][stage]
    assert quantized.symbols.shape == (2, tokens, channels)
    assert run.measured['elements'].tolist() == [tokens * channels] * 2
    _, run = measure(model, name, Perturbation('featjnd', 0.5))
    torch.testing.assert_close(
        run.measured['nrmse'], torch.full((2, ), 0.5).double(), rtol=1e-5,
        atol=0)
    wrong = build_featjnd(
        name, host, split=f'backbone.stages.{stage}', in_channels=tokens + 1)
    with pytest.raises(ValueError, match=f'emits {channels} channels.*'
                       f'in_channels=.{tokens + 1}.*Set in_channels'):
        predict(wrong, name, Perturbation('gaussian', 0.5))


# ---------------------------------------------- several views of one image
VIEWS = {
    'windows': ('Swin', 'backbone.stages.0.blocks.0.attn.w_msa', 8, TOKEN),
    'shifted windows':
    ('Swin', 'backbone.stages.2.blocks.1.attn.w_msa', 32, TOKEN),
    'shared head': ('Mask R-CNN C4', 'roi_head.shared_head', 512, CONV),
    'shared layer':
    ('Faster R-CNN', 'roi_head.bbox_head.shared_fcs.0', 16, TOKEN),
    'regions': ('Mask R-CNN', 'roi_head.bbox_roi_extractor', 16, CONV),
}


def part_of(batch, *which):
    return {k: [v[i] for i in which] for k, v in batch.items()}


@pytest.mark.parametrize('view', VIEWS)
def test_an_image_is_the_same_alone_and_in_a_batch(view):
    """Noise, NRMSE, bits and bytes, however many views of it there are."""
    name, split, channels, estimator = VIEWS[view]
    model = build_featjnd(
        name, build_host(name), split=split, in_channels=channels,
        estimator=dict(estimator, mode='envelope'))
    strength = 1.0
    if name == 'Swin':  # one window hardly moves what it says
        strength = 100.0
        model.head.fc.weight.data.mul_(5)
    batch = make_batch(name, num=3)
    clean = predict(model, name, None, batch)
    each = len(clean) // 3
    # the features of the host differ in the last bits, and so some symbols
    rtol = 1e-3 if view == 'shared head' else 1e-6
    for operation in (Perturbation('gaussian', strength),
                      Perturbation('permuted', strength),
                      Quantization('one-step', scale=0.25, coded=True),
                      Quantization(dict(type='permuted-steps', power=1),
                                   scale=0.05, coded=True)):
        together, run = measure(model, name, operation, batch)
        alone = [measure(model, name, operation, part_of(batch, i))
                 for i in range(3)]
        for key, value in run.measured.items():
            expected = torch.cat([r.measured[key] for _, r in alone])
            torch.testing.assert_close(value, expected, rtol=rtol, atol=1e-6)
        # boxes and scores, or scores of classes
        for i in range(3):
            for j in range(min(each, 2)):
                torch.testing.assert_close(
                    together[i * each + j], alone[i][0][j], rtol=1e-4,
                    atol=1e-4 if view == 'shared head' else 1e-5)
        if isinstance(operation, Perturbation):  # it is not for nothing
            assert not all(
                torch.allclose(a, b, rtol=1e-3, atol=1e-3)
                for a, b in zip(together, clean) if a.shape == b.shape)


class Keep(Perturbation):
    """Keeps what it does."""

    def __call__(self, feature, level, visit):
        value = super().__call__(feature, level, visit)
        visit.run.kept.append((visit.images, value - feature))
        return value


@pytest.mark.parametrize('view', ['windows', 'regions'])
def test_every_view_has_noise_of_its_own(view):
    name, split, channels, estimator = VIEWS[view]
    model = build_featjnd(name, build_host(name), split=split,
                          in_channels=channels, estimator=estimator)
    batch = make_batch(name, num=3)
    together = measure(model, name, Keep('gaussian', 1.0), batch)[1].kept
    for i in range(3):
        alone, = measure(
            model, name, Keep('gaussian', 1.0), part_of(batch, i))[1].kept
        noise = together[0][1][together[0][0] == i]
        torch.testing.assert_close(noise, alone[1], rtol=1e-3, atol=1e-5)
        rows = torch.nn.functional.normalize(noise.flatten(1))
        similarity = (rows @ rows.T).fill_diagonal_(0)
        # 8 * 49 and 16 * 49 values: 5 sigma of a correlation
        assert similarity.abs().max() < 5 / rows.size(1)**0.5


def test_the_bytes_are_those_of_all_windows():
    name, split, channels, estimator = VIEWS['windows']
    model = build_featjnd(name, build_host(name), split=split,
                          in_channels=channels, estimator=estimator)
    _, run = measure(
        model, name, Quantization('one-step', scale=0.25, coded=True))
    # 64 / 4 = 16 tokens a side, in windows of 7: 3 x 3 windows
    (images, quantized), = run.kept
    assert images.tolist() == [0] * 9 + [1] * 9
    assert quantized.symbols.shape == (18, 49, 8)
    assert run.measured['elements'].tolist() == [9 * 49 * 8] * 2
    for i in range(2):
        windows = [
            encode_image([quantized.of_image(j)])
            for j in range(9 * i, 9 * i + 9)
        ]
        assert run.measured['coded_bytes'][i] == sum(map(len, windows))
    assert (run.measured['coded_bytes'] > run.measured['bits'] / 8).all()


@pytest.mark.parametrize('view', ['shared head', 'shared layer', 'regions'])
def test_the_gradient_of_other_regions_is_refused(view):
    """The loss samples regions, and adds the objects themselves."""
    name, split, channels, estimator = VIEWS[view]
    model = build_featjnd(name, build_host(name), split=split,
                          in_channels=channels, estimator=estimator)
    before = hooks_of(model)
    for operation in (Perturbation('gradient-sensitivity', 0.5),
                      Quantization('gradient')):
        with pytest.raises(ValueError, match="split='roi_head.*gradient"):
            predict(model, name, operation)
    assert hooks_of(model) == before


# --------------------------------------------------------------------- padding
def letterboxed(content, size=SIZE):
    """One image of YOLOX's test pipeline that was not enlarged."""
    import numpy as np
    from mmdet.registry import TRANSFORMS
    data = dict(
        img=np.random.default_rng(0).integers(0, 256, (*content, 3), 'uint8'),
        img_shape=content, ori_shape=content, img_id=0, img_path='0.png',
        height=content[0], width=content[1])
    with DefaultScope.overwrite_default_scope('mmdet'):
        for transform in (
                dict(type='Resize', scale_factor=1.0, keep_ratio=True),
                dict(type='Pad', size=(size, size),
                     pad_val=dict(img=(114.0, 114.0, 114.0))),
                dict(type='PackDetInputs',
                     meta_keys=('img_id', 'img_path', 'ori_shape',
                                'img_shape', 'scale_factor'))):
            data = TRANSFORMS.build(transform)(data)
    assert data['data_samples'].img_shape == (size, size)  # says nothing
    return {k: [v] for k, v in data.items()}


@pytest.mark.parametrize('split, channels', [('neck', 3 * 16),
                                             ('backbone', 32 + 64 + 128)])
def test_the_padding_of_a_letterbox_costs_little(split, channels):
    model = build_featjnd('YOLOX', build_host('YOLOX'), split=split)
    operation = Quantization('one-step', scale=0.25, coded=True)
    size = 128  # maps of 16, 8 and 4 tokens a side
    _, whole = measure(
        model, 'YOLOX', operation, letterboxed((size, size), size))
    _, small = measure(model, 'YOLOX', operation, letterboxed((1, 1), size))
    # one token of every level, and two of the letterbox around it
    assert small.measured['elements'].item() == 9 * channels
    assert small.measured['coded_bytes'] < whole.measured['coded_bytes']
    assert small.measured['coded_bytes'] < 9 * channels
    for _, quantized in small.kept:
        assert quantized.symbols.shape[-2:] == (3, 3)
    # a token is there where a pixel of it is
    _, other = measure(model, 'YOLOX', operation, letterboxed((9, 33), size))
    shapes = [tuple(x.symbols.shape[-2:]) for _, x in other.kept]
    assert shapes == [(4, 7), (3, 5), (3, 4)]


# ------------------------------------------------------------------ refusals
@pytest.mark.parametrize('host, advice', [
    ('mmdet.Detectron2Wrapper', 'MMDetection model of the same name'),
    ('mmpretrain.TimmClassifier', 'mmpretrain.TIMMBackbone'),
    ('mmpretrain.HuggingFaceClassifier', 'mmpretrain.TIMMBackbone'),
])
def test_refuses_a_host_without_neck(host, advice):
    with pytest.raises(TypeError, match=f'{host}.*{advice}'):
        OUR_MODELS.build(
            dict(
                type='mmfeatjnd.FeatJND',
                host=host,
                neck=dict(
                    type='mmfeatjnd.FeatJNDNeck',
                    estimator=CONV,
                    in_channels=8)))


def test_refuses_a_host_that_passes_its_neck_by():
    """An ``extract_feat`` of its own that does not call the neck."""
    model = build_featjnd('ResNet', split='backbone', in_channels=64)
    model.extract_feat = lambda inputs, **kwargs: (model.neck.neck(
        model.backbone(inputs)))
    data = model.data_preprocessor(make_batch('ResNet'), True)
    with pytest.raises(ValueError, match="'backbone' was never reached"):
        model.loss(data['inputs'], data['data_samples'])


@pytest.mark.parametrize('split, nearest', [
    ('backbone.layr3', 'backbone.layer3'),
    ('head.fcs', 'head.fc'),
])
def test_refuses_a_wrong_split(split, nearest):
    with pytest.raises(ValueError, match=f"'{split}'.*Did you.*'{nearest}'"):
        build_featjnd('ResNet', split=split, in_channels=32)


@pytest.mark.parametrize('name, channels', [('ResNet', 33), ('Swin', 16),
                                            ('PSPNet', [8, 16, 32, 65])])
def test_refuses_wrong_channels(name, channels):
    model = build_featjnd(name, in_channels=channels)
    given = channels if isinstance(channels, int) else channels[-1]
    with pytest.raises(
            ValueError,
            match=f'emits .* channels.*in_channels=.*{given}.*Set in_channels'
    ):
        model.loss(**model.data_preprocessor(make_batch(name), True))
    with pytest.raises(ValueError, match=f'emits .*in_channels=.*{given}'):
        predict(model, name, Perturbation('featjnd', 1.0))


def test_refuses_the_wrong_estimator():
    model = build_featjnd('ResNet', estimator=TOKEN)
    with pytest.raises(ValueError, match='mmfeatjnd.ConvEstimator'):
        model.loss(**model.data_preprocessor(make_batch('ResNet'), True))
    model = build_featjnd('Swin', estimator=CONV)
    with pytest.raises(ValueError, match='mmfeatjnd.TokenEstimator'):
        model.loss(**model.data_preprocessor(make_batch('Swin'), True))


def test_refuses_levels_that_do_not_match():
    with pytest.raises(ValueError, match=r'levels=\[4\].*0 to 3'):
        build_featjnd('PSPNet', levels=[4])
    # one level more than the backbone emits
    model = build_featjnd(
        'PSPNet', in_channels=[8, 16, 32, 64, 64], levels=[4])
    with pytest.raises(ValueError, match=r'emits 4 level.*levels=\[4\]'):
        model.loss(**model.data_preprocessor(make_batch('PSPNet'), True))
    with pytest.raises(ValueError, match=r'emits 4 level.*levels=\[4\]'):
        predict(model, 'PSPNet', Perturbation('gaussian', 1.0))
    # ... than the named module emits
    model = build_featjnd('ResNet', in_channels=[32, 32])
    with pytest.raises(ValueError, match=r'does not emit level\(s\) \[1\]'):
        model.loss(**model.data_preprocessor(make_batch('ResNet'), True))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['ResNet', 'RetinaNet'])
def test_refuses_broken_features(name, value):
    model = build_featjnd(name, build_host(name))
    before = hooks_of(model)
    with torch.no_grad():
        model.backbone.layer2[0].conv1.weight[0] = value
    with pytest.raises(ValueError, match='NaN or infinite'):
        predict(model, name, Perturbation('gaussian', 1.0))
    with pytest.raises(ValueError, match='NaN or infinite'):
        model.loss(**model.data_preprocessor(make_batch(name), True))
    # nothing is left behind
    assert hooks_of(model) == before
    assert model.featjnd_neck.change is None
    assert 'forward' not in vars(model)
    assert not model.featjnd_neck.attached


# ---------------------------------------------------- one pass in place of two
@pytest.mark.parametrize('name', HOSTS)
def test_an_answer_beside_a_prediction_is_the_same(name):
    """And most of the host does not run again for it."""
    host = build_host(name)
    fields = HOSTS[name]()[1]
    neck = neck_at(host, fields.get('split'), fields.get('levels'))
    data = host.data_preprocessor(make_batch(name), False)
    samples = data['data_samples']
    operation = Perturbation('gaussian', 0.5)
    prefix, memo = PrefixReplay(neck), TailMemo(neck)

    def answer(passage, proposals=None):
        watched = Passage(host)
        with torch.no_grad(), passage, watched.watch():
            found = adapter_of(host).likelihood(
                host, **data, proposals=proposals)
        return found, sum(not any(m.children()) for m in watched.entered)

    clean, _ = answer(nullcontext())
    expected, whole = answer(neck.run(operation, samples), clean.proposals)
    with torch.no_grad():
        with prefix.record():
            host.predict(data['inputs'], samples)
        with neck.run(operation, samples), prefix.replay(), memo.record():
            host.predict(data['inputs'], samples)
    with prefix.replay():
        found, rest = answer(memo.replay(Run(operation, neck, samples)),
                             clean.proposals)
    assert found.terms.keys() == expected.terms.keys()
    for key, value in expected.terms.items():
        assert torch.equal(found.terms[key].value, value.value)
    # a RoI head looks at other regions, and DETR makes queries anew
    partly = hasattr(host, 'roi_head') or name in ('DETR', 'DINO')
    assert rest < (0.6 if partly else 0.25) * whole


# ----------------------------------------------------------------- the codec
@pytest.mark.parametrize('name', HOSTS)
def test_a_plan_of_every_host(name):
    """The components of every level and token give the features back, and at
    fine steps the host's answer is near the clean one."""
    host = build_host(name)
    fields = HOSTS[name]()[1]
    neck = neck_at(host, fields.get('split'), fields.get('levels'))
    metric = metric_of(neck, Pictures(name), 1, 'auto')
    parts = {i: tuple(rounded_part(*x) for x in every)
             for i, every in transforms_of(metric).items()}
    plan = CodecPlan(parts, 'task', neck.split, metric.configured,
                     host_hash(host), 2, 0)
    data = host.data_preprocessor(make_batch(name), False)
    seen = []

    def look(feature, level, visit):
        seen.append((feature, level))
        return feature

    def answer(operation, proposals=None):
        with torch.no_grad(), neck.run(
                operation, data['data_samples']) as run:
            return adapter_of(host).likelihood(
                host, **data, proposals=proposals), run

    clean, _ = answer(look)
    assert sorted(parts) == sorted({i for _, i in seen})
    largest = 0.0
    for feature, level in seen:
        code = LevelCode(parts[level], torch.device('cpu'))
        z = code.components(feature)
        largest = max(largest, *(float(x.abs().max()) for x in z))
        back = code.feature(z, feature)
        error = (back - feature).square().mean().sqrt()
        assert back.shape == feature.shape
        assert error < 1e-3 * feature.square().mean().sqrt()
    costs = []
    for share in (1e-4, 1e-2):
        operation = Quantization(dict(type='plan', plan=plan), coded=True,
                                 scale=share * largest)
        found, run = answer(operation, clean.proposals)
        assert (run.measured['coded_bytes'] > 0).all()
        costs.append(float(nats(clean.terms, found.terms, 2).mean()))
    # of a ViT whose class token alone is read, nothing costs anything
    assert 0 <= costs[0] < max(0.1 * costs[1], 1e-12)


class Pictures(list):
    """A loader of one batch."""

    def __init__(self, name):
        super().__init__([make_batch(name)])
        self.dataset = range(2)


# ------------------------------------------------------------ extreme images
@pytest.mark.parametrize(
    'name', ['ResNet', 'PSPNet', 'RetinaNet', 'Mask R-CNN', 'DETR'])
def test_images_of_one_pixel(name):
    """The results are finite: a defined if useless answer."""
    model = build_featjnd(name, build_host(name))
    batch = make_batch(name, size=1)
    for distortion in ('gaussian', 'featjnd', 'permuted'):
        tensors = predict(
            model, name, Perturbation(distortion, 1.0), copy.deepcopy(batch))
        assert all(t.isfinite().all() for t in tensors)
    model.train()
    losses = model.loss(**model.data_preprocessor(batch, True))
    assert all(v.isfinite().all() for v in losses.values())


@pytest.mark.parametrize('name', ['RetinaNet', 'Mask R-CNN', 'DETR', 'YOLOX'])
def test_no_predictions(name):
    """An image without detections is one without objects."""
    model = build_featjnd(
        name,
        build_host(name),
        discrepancy=dict(type='mmfeatjnd.PseudoGroundTruth', score_thr=1.0))
    model.train()
    losses = model.loss(**model.data_preprocessor(make_batch(name), True))
    assert all(v.isfinite().all() for v in losses.values())
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    model.eval()
    test_cfg = model.test_cfg.get('rcnn', model.test_cfg)
    test_cfg.update(score_thr=1.0)
    if name == 'DETR':
        return  # its decoder always gives `max_per_img` detections
    head = getattr(model, 'roi_head', None) or model.bbox_head
    assert head.test_cfg.score_thr == 1.0
    tensors = predict(model, name, Perturbation('gaussian', 1.0))
    assert not any(t.numel() for t in tensors)
