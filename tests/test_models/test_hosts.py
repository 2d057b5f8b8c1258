"""FeatJND on a tiny version of every kind of host."""
import copy
import logging

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

import mmfeatjnd  # noqa: F401  lets mmseg's configs be found
from mmfeatjnd.hosts import sharing_prefix
from mmfeatjnd.models import (
    Perturbation,
    Prefix,
    attached,
    check_faults,
)
from mmfeatjnd.models.forward_runs import every_forward
from mmfeatjnd.models.sensitivity import task_sensitivity
from mmfeatjnd.registry import MODELS as OUR_MODELS

SIZE = 64  # of the images, in pixels
CLASSES = 3
CONV = dict(type='mmfeatjnd.ConvEstimator', hidden_channels=8)
TOKEN = dict(type='mmfeatjnd.TokenEstimator', hidden_channels=8)


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


def build_featjnd(name, host=None, objective=None, **neck):
    cfg, fields = HOSTS[name]()
    fields.update(neck)
    cfg.neck = dict(
        type='mmfeatjnd.FeatJNDNeck', neck=cfg.get('neck'), **fields)
    cfg.host = f'{library(name)}.{cfg.type}'
    cfg.type = 'mmfeatjnd.FeatJND'
    if objective is None and library(name) == 'mmdet':
        # with random weights no detection is certain
        objective = dict(
            discrepancy=dict(
                type='mmfeatjnd.PseudoGroundTruth', score_thr=0.0))
    cfg.objective = dict(type='mmfeatjnd.FeatJNDLoss', **(objective or {}))
    with DefaultScope.overwrite_default_scope(library(name)):
        model = OUR_MODELS.build(cfg)
    if host is not None:
        result = model.load_state_dict(
            copy.copy(host.state_dict()), strict=False)
        # the estimators begin anew, which is no fault of the checkpoint
        assert not result.unexpected_keys and not result.missing_keys
    for estimator in model.neck.estimators:
        estimator.num_updates.fill_(1)
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
            with every_forward(model, model.featjnd_neck, operation) as runs:
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
    assert type(model).__name__ == type(host).__name__


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
        assert estimator.num_updates == 2
        assert estimator.expand.weight.grad.abs().sum() > 0
        for p in estimator.parameters():
            p.grad = None
        estimator.num_updates.fill_(1)
        estimator.mean_square.fill_(1)
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
    operation = Perturbation('uniform', 0.7)
    neck = model.featjnd_neck
    runs = []
    first = first_module(model)
    handle = first.register_forward_hook(lambda *args: runs.append(1))

    def passes():
        """Clean, perturbed, clean, from the same state."""
        task = copy.deepcopy(model.featjnd_objective.discrepancy)
        with torch.no_grad():
            reference = task.reference(model, inputs, samples)
            with neck.run(operation, samples):
                perturbed = task(model, inputs, samples, reference)
            clean = task(model, inputs, samples, reference)
        return torch.stack([perturbed, clean])

    with attached(model, neck):
        with sharing_prefix(model, Prefix(model, neck)):
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
    result = task_sensitivity(model, model.neck, data['inputs'],
                              data['data_samples'])
    assert set(result) == set(model.neck.levels)
    for level, (value, ) in result.items():
        channels = model.neck.in_channels[level]
        assert value.size(2 if value.dim() == 3 else 1) == channels
        assert value.isfinite().all() and value.min() >= 0
    assert hooks_of(model) == before
    assert all(p.grad is None for p in model.parameters())


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
    with pytest.raises(RuntimeError, match="'backbone' was never reached"):
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
    with pytest.raises(RuntimeError, match=r'does not emit level\(s\) \[1\]'):
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
        objective=dict(
            discrepancy=dict(
                type='mmfeatjnd.PseudoGroundTruth', score_thr=1.0)))
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
