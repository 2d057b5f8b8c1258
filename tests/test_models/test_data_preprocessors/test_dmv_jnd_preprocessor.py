"""A constant JND makes every value computable by hand."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from mmfeatjnd.models import load_dmv_jnd
from mmfeatjnd.registry import MODELS

E = (0.1, -0.2, 0.4)  # in units of 127.5 pixels
MEAN, STD = [10., 20., 30.], [2., 4., 5.]
HOSTS = dict(
    classifier='mmpretrain.ClsDataPreprocessor',
    detector='mmdet.DetDataPreprocessor',
    segmentor='mmseg.SegDataPreProcessor')


@MODELS.register_module()
class ConstantTestNet(nn.Module):
    """Stands for DMVJNDNet: e is a constant for each channel."""

    def __init__(self, value=E):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value).view(3, 1, 1))

    def check(self, image):
        assert image.size(-3) == 3

    def forward(self, image, attention):
        return self.value.expand_as(image)


@pytest.fixture
def jnd(configs):

    def jnd(net='ConstantTestNet', **kwargs):
        host_cfg, _ = configs
        task = dict(
            type='mmfeatjnd.ClassificationTask',
            config=dict(
                default_scope='mmpretrain',
                model=host_cfg('classifier')),
            input_size=16,
            name='tiny')
        net = dict(type=f'mmfeatjnd.{net}', **kwargs)
        return dict(
            config=dict(
                model=dict(type='mmfeatjnd.DMVJND', tasks=[task], net=net)))

    return jnd


@pytest.fixture
def real_jnd(jnd):
    """A JND that depends on the image."""
    return jnd('DMVJNDNet', widths=(4, ), convs=1, strides=(2, ), bound=0.5)


@pytest.fixture
def wrap(jnd):

    def wrap(kind='detector', **kwargs):
        torch.manual_seed(0)
        kwargs.setdefault('jnd', jnd())
        kwargs.setdefault('host', HOSTS.get(kind, kind))
        return MODELS.build(
            dict(type='mmfeatjnd.DMVJNDPreprocessor', **kwargs))

    return wrap


def plain(kind, **kwargs):
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.build(dict(type=HOSTS[kind], **kwargs))


def pixels(*sizes, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(len(sizes))
    return [
        torch.randint(0, 256, (3, *size), generator=generator).to(dtype)
        for size in sizes
    ]


def samples(*ids):
    return [BaseDataElement(metainfo=dict(img_id=i)) for i in ids]


def by_hand(image, strength=1.0):
    """The JND is what the range of pixels leaves of e."""
    image = image.float()
    e = 127.5 * torch.tensor(E).view(3, 1, 1)
    e = (image + e).clamp(0, 255) - image
    return (image + strength * e).clamp(0, 255)


def normalized(image, to_rgb=True):
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    image = image.flip(0) if to_rgb else image
    return (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


# ------------------------------------------------------ values and padding
@pytest.mark.parametrize('kind', HOSTS)
@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float])
def test_values_by_hand(wrap, kind, to_rgb, dtype):
    sizes = [(17, 24), (17, 24) if kind == 'segmentor' else (20, 9)]
    extra = {
        'classifier':
        dict(to_rgb=to_rgb, pad_size_divisor=8, pad_value=7),
        'detector':
        dict(bgr_to_rgb=to_rgb, pad_size_divisor=8, pad_value=7),
        'segmentor':
        dict(bgr_to_rgb=to_rgb, pad_val=7, test_cfg=dict(size_divisor=8))
    }[kind]
    preprocessor = wrap(kind, mean=MEAN, std=STD, strength=0.5, **extra)
    images = pixels(*sizes, dtype=dtype)
    before = copy.deepcopy(images)
    data = dict(inputs=images, data_samples=samples(0, 1))
    out = preprocessor(data, False)['inputs']
    assert out.shape == (2, 3, 24, 24) and out.dtype == torch.float
    for x, image in zip(out, images):
        h, w = image.shape[1:]
        close(x[:, :h, :w], normalized(by_hand(image, 0.5), to_rgb))
        assert (x[:, h:] == 7).all() and (x[:, :, w:] == 7).all()
    # what the data loader holds is not changed
    assert data['inputs'] is images
    assert all(torch.equal(a, b) for a, b in zip(before, images))


@pytest.mark.parametrize('kind', HOSTS)
def test_a_stacked_batch(wrap, kind):
    image, other = pixels((16, 24), (16, 24))
    preprocessor = wrap(kind, mean=MEAN, std=STD)
    out = preprocessor(dict(inputs=torch.stack([image, other])))['inputs']
    close(out[0], normalized(by_hand(image), to_rgb=False))
    close(out[1], normalized(by_hand(other), to_rgb=False))


def test_channels_of_a_jnd_trained_on_rgb(wrap):
    image, = pixels((16, 16))
    out = wrap(swap_channels=True)(dict(inputs=[image]))['inputs'][0]
    close(out, by_hand(image.flip(0)).flip(0))


def test_a_pipeline_that_normalizes(wrap):
    image, = pixels((16, 16))
    preprocessor = wrap(
        image_norm=dict(mean=MEAN, std=STD), pad_size_divisor=32)
    out = preprocessor(dict(inputs=[normalized(image, False)]))['inputs'][0]
    close(out[:, :16, :16], normalized(by_hand(image), False))
    assert (out[:, 16:] == 0).all()
    unit = wrap(image_norm=dict(mean=[0], std=[255]))
    out = unit(dict(inputs=[image / 255]))['inputs'][0]
    close(out, by_hand(image) / 255)


def test_the_range_of_pixels_is_checked(wrap):
    image, = pixels((16, 16))
    caffe = image - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    for wrong in (image / 255, normalized(image) / 50, caffe):
        with pytest.raises(ValueError, match=r'pixels in.*image_norm'):
            wrap()(dict(inputs=[wrong]))
    with pytest.raises(ValueError, match='after undoing image_norm'):
        # mean and standard deviation in pixels are wanted
        wrap(image_norm=dict(mean=[0.45], std=[0.22]))(
            dict(inputs=[normalized(image) / 50]))
    with pytest.raises(ValueError, match='Remove image_norm'):
        wrap(image_norm=dict(mean=MEAN, std=STD))(dict(inputs=[image]))
    wrap()(dict(inputs=[torch.zeros(3, 16, 16)]))  # a black image is one
    # MMDetection's photometric augmentation does not clip
    bright = image * 1.5 - 40
    out = wrap()(dict(inputs=[bright]))['inputs'][0]
    close(out, by_hand(bright))


# ---------------------------------------------------- the host stays the host
def detections(sizes):
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData
    result = []
    for i, (h, w) in enumerate(sizes):
        sample = DetDataSample(
            metainfo=dict(img_id=i, img_shape=(h, w), ori_shape=(h, w)))
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([[1., 2., 9., 8.]])),
            labels=torch.tensor([i]),
            masks=BitmapMasks(np.ones((1, h, w), np.uint8), h, w))
        sample.gt_sem_seg = PixelData(
            sem_seg=torch.ones(1, h, w, dtype=torch.long))
        result.append(sample)
    return result


DETECTION = dict(
    mean=MEAN,
    std=STD,
    bgr_to_rgb=True,
    pad_mask=True,
    pad_seg=True,
    pad_size_divisor=16)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('augment', [None, 'pad', 'resize'])
def test_boxes_masks_and_shapes_are_the_hosts(wrap, training, augment):
    MessageHub.get_current_instance().update_info('iter', 0)
    sizes = [(17, 24), (20, 9)]
    augments = dict(
        pad=dict(
            type='BatchFixedSizePad',
            size=(64, 64),
            img_pad_value=3,
            pad_mask=True,
            pad_seg=True),
        resize=dict(
            type='BatchSyncRandomResize',
            random_size_range=(64, 64),
            interval=1))
    cfg = dict(DETECTION)
    if augment:
        cfg['batch_augments'] = [augments[augment]]
    results = []
    for preprocessor in (plain('detector', **cfg), wrap(**cfg)):
        # the second batch is resized
        for _ in range(2):
            data = dict(inputs=pixels(*sizes), data_samples=detections(sizes))
            result = preprocessor(data, training)
        results.append(result)
    host, ours = results
    assert ours['inputs'].shape == host['inputs'].shape
    side = 64 if training and augment else 32
    assert host['inputs'].shape[-1] == side
    if augment != 'resize':
        for i, (h, w) in enumerate(sizes):
            rest = torch.ones(side, side, dtype=torch.bool)
            rest[:h, :w] = False
            changed = (ours['inputs'][i] != host['inputs'][i]).any(0)
            assert not changed[rest].any() and changed[~rest].any()
    for a, b in zip(host['data_samples'], ours['data_samples']):
        assert a.metainfo == b.metainfo
        x, y = a.gt_instances, b.gt_instances
        assert type(x.bboxes) is type(y.bboxes) is torch.Tensor
        assert torch.equal(x.bboxes, y.bboxes)
        assert torch.equal(x.labels, y.labels)
        assert np.array_equal(x.masks.masks, y.masks.masks)
        assert torch.equal(a.gt_sem_seg.sem_seg, b.gt_sem_seg.sem_seg)


def test_segmentation_maps_are_the_hosts(wrap):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    results = []
    cfg = dict(size=(32, 32), pad_val=5, seg_pad_val=254, mean=MEAN, std=STD)
    for preprocessor in (plain('segmentor', **cfg), wrap('segmentor', **cfg)):
        sample = SegDataSample(metainfo=dict(img_path='a/b.png'))
        sample.gt_sem_seg = PixelData(
            data=torch.ones(1, 16, 24, dtype=torch.long))
        results.append(
            preprocessor(
                dict(inputs=pixels((16, 24)), data_samples=[sample]), True))
    host, ours = results
    a, b = host['data_samples'][0], ours['data_samples'][0]
    assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
    assert (b.gt_sem_seg.data[0, 16:] == 254).all()
    assert a.metainfo == b.metainfo
    assert (ours['inputs'][0, :, 16:] == 5).all()
    assert (ours['inputs'][0, :, :, 24:] == 5).all()
    close(ours['inputs'][0, :, :16, :24],
          normalized(by_hand(pixels((16, 24))[0]), False))


def test_mixup_of_the_train_cfg(build, configs, jnd, batch):
    cfg = configs[0]('classifier')
    cfg['train_cfg'] = dict(augments=dict(type='Mixup', alpha=1.))
    cfg['data_preprocessor'].update(
        type='mmfeatjnd.DMVJNDPreprocessor',
        host=HOSTS['classifier'],
        jnd=jnd(),
        num_classes=4)
    model = build(cfg)
    assert model.data_preprocessor.batch_augments is not None
    _, data_samples = batch('classifier')
    image, other = pixels((32, 32), (32, 32))
    out = model.data_preprocessor(
        dict(inputs=[image, other], data_samples=data_samples), True)
    score = out['data_samples'][0].gt_score
    lam = score[data_samples[0].gt_label]
    # what is mixed are the distorted images
    close(out['inputs'][0], lam * by_hand(image) + (1 - lam) * by_hand(other))


def test_in_semi_supervised_detection(jnd):
    preprocessor = MODELS.build(
        dict(
            type='mmdet.MultiBranchDataPreprocessor',
            data_preprocessor=dict(
                type='mmfeatjnd.DMVJNDPreprocessor',
                host='mmdet.DetDataPreprocessor',
                jnd=jnd())))
    image, other = pixels((16, 24), (16, 24))
    data = dict(
        inputs=dict(sup=[image, None], student=[None, other]),
        data_samples=dict(sup=[None], student=[None]))
    out = preprocessor(data, True)['inputs']
    close(out['sup'][0], by_hand(image))
    close(out['student'][0], by_hand(other))


@pytest.mark.parametrize('kind', HOSTS)
def test_hosts_train_and_predict(build, configs, batch, real_jnd, kind):
    cfg = configs[0](kind)
    host = build(cfg)
    cfg['data_preprocessor'].update(
        type='mmfeatjnd.DMVJNDPreprocessor', host=HOSTS[kind], jnd=real_jnd)
    model = build(cfg)
    # no missing and no unexpected keys
    model.load_state_dict(host.state_dict())
    assert list(model.state_dict()) == list(host.state_dict())
    assert len(list(model.modules())) == len(list(host.modules()))
    assert isinstance(model.data_preprocessor, type(host.data_preprocessor))
    assert (type(model.data_preprocessor).__name__ ==
            f'DMVJND{type(host.data_preprocessor).__name__}')
    jnd_model = model.data_preprocessor.dmv_jnd.model
    model.train()
    assert not any(m.training for m in jnd_model.modules())
    assert not any(p.requires_grad for p in jnd_model.parameters())

    _, data_samples = batch(kind)
    images = pixels((32, 32), (32, 32))

    def data():
        return dict(inputs=images, data_samples=copy.deepcopy(data_samples))

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = model.data_preprocessor(data(), True)
    losses, _ = model.parse_losses(model(**batch, mode='loss'))
    losses.backward()
    optimizer.step()
    model.eval()
    model.load_state_dict(host.state_dict())
    with torch.no_grad():
        distorted = model.test_step(data())
        clean = host.test_step(data())
        model.data_preprocessor.dmv_jnd.test = False
        same = model.test_step(data())

    def outcome(results):
        r = results[0]
        return (r.pred_score if kind == 'classifier' else r.seg_logits.data
                if kind == 'segmentor' else r.pred_instances.scores)

    assert torch.equal(outcome(same), outcome(clean))
    x, y = outcome(distorted), outcome(clean)
    assert x.shape != y.shape or not torch.allclose(x, y)
    assert torch.isfinite(x).all()


def test_switched_off_is_the_host(wrap, real_jnd):
    sizes = [(17, 24), (20, 9)]
    host = plain('detector', **DETECTION)
    for train, test in ((False, True), (True, False)):
        ours = wrap(train=train, test=test, jnd=real_jnd, **DETECTION)
        for training in (True, False):
            a, b = (
                p(dict(inputs=pixels(*sizes), data_samples=detections(sizes)),
                  training)['inputs'] for p in (host, ours))
            assert torch.equal(a, b) == (not (train if training else test))


def test_a_copy_shares_the_frozen_model(wrap):
    preprocessor = wrap()
    other = copy.deepcopy(preprocessor)
    assert other.dmv_jnd.model is preprocessor.dmv_jnd.model
    other.dmv_jnd.strength = 0.0
    image, = pixels((16, 16))
    close(other(dict(inputs=[image]))['inputs'][0], image.float())
    close(preprocessor(dict(inputs=[image]))['inputs'][0], by_hand(image))


def test_it_follows_the_hosts_device(wrap, real_jnd):
    # stands for a GPU: it holds no values, but mixing devices is an error
    preprocessor = wrap(
        jnd=real_jnd, mean=MEAN, std=STD, strength=(0.5, 1)).to('meta')
    out = preprocessor(dict(inputs=pixels((16, 24), (8, 9))))['inputs']
    assert out.device.type == 'meta' and out.shape == (2, 3, 16, 24)


def test_mixed_precision_changes_no_pixel(wrap, real_jnd):
    image, = pixels((16, 16))
    preprocessor = wrap(jnd=real_jnd)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = preprocessor(dict(inputs=[image]))['inputs']
    assert torch.equal(mixed, preprocessor(dict(inputs=[image]))['inputs'])


# ------------------------------------------------- strength, noise and seeds
def drawn(out, image):
    """The strength, where nothing is clipped."""
    ratio = (out[0] - image[0]) / (127.5 * E[0])
    close(ratio, ratio.mean().expand_as(ratio))
    return ratio.mean().item()


def test_strength_is_drawn_for_each_image(wrap):
    image = torch.full((3, 16, 16), 100.)

    def run(preprocessor, ids, training=False):
        data = dict(inputs=[image] * len(ids), data_samples=samples(*ids))
        out = preprocessor(data, training)['inputs']
        return [drawn(x, image) for x in out]

    preprocessor = wrap(strength=(0.5, 1.5))
    values = run(preprocessor, range(64))
    assert 0.5 <= min(values) < 0.6 and 1.4 < max(values) <= 1.5
    assert 0.9 < np.mean(values) < 1.1
    # of the image, not of the batch
    assert run(preprocessor, [7, 3]) == [values[7], values[3]]
    assert run(wrap(strength=(0.5, 1.5), seed=1), [7]) != [values[7]]
    # other ones in every step of training, and the same after resuming
    hub = MessageHub.get_current_instance()
    steps = []
    for step in (4, 5):
        hub.update_info('iter', step)
        steps += [run(preprocessor, [7], True) for _ in range(2)]
    assert len(np.unique(steps)) == 4
    hub.update_info('iter', 4)
    assert run(wrap(strength=(0.5, 1.5)), [7], True) == steps[0]
    # testing between has no part in it
    assert run(preprocessor, [7]) == [values[7]]
    # nor has a copy, such as an EMA's
    other = copy.deepcopy(preprocessor)
    assert run(other, [7], True) == run(preprocessor, [7], True)


def test_an_image_does_not_depend_on_its_batch(wrap, real_jnd):
    for distortion in ('dmv-jnd', 'gaussian'):
        preprocessor = wrap(jnd=real_jnd, distortion=distortion)
        a, b, c = pixels((17, 24), (32, 40), (17, 24))
        alone = preprocessor(
            dict(inputs=[a], data_samples=samples(5)))['inputs'][0]
        out = preprocessor(
            dict(inputs=[b, c, a], data_samples=samples(2, 3, 5)))['inputs']
        close(out[2, :, :17, :24], alone)
        assert not torch.equal(out[0, :, :17, :24], b[:, :17, :24].float())


def test_white_noise_of_the_same_power(wrap):
    image = torch.full((3, 32, 32), 128.)
    preprocessor = wrap(distortion='gaussian', strength=0.5)
    power = np.mean([(0.5 * 127.5 * e)**2 for e in E])
    data = dict(inputs=[image, image])
    x, y = preprocessor(data)['inputs'] - image
    for noise in (x, y):
        assert noise.square().mean().item() == pytest.approx(power, rel=1e-2)
        assert abs(noise.mean().item()) < 3
    assert not torch.equal(x, y)
    assert torch.equal(preprocessor(data)['inputs'][0] - image, x)
    u, v = (preprocessor(data, True)['inputs'][0] for _ in range(2))
    assert not torch.equal(u, v)
    # also where each size is a batch of its own
    tall = torch.full((3, 40, 32), 128.)
    out = preprocessor(dict(inputs=[image, tall]))['inputs']
    assert not torch.equal(out[0, :, :32], out[1, :, :32])


# -------------------------------------------------------- files and the tools
@pytest.fixture
def trained(real_jnd, tmp_path):
    """A config file and a checkpoint, as tools/train.py leaves them."""
    model = load_dmv_jnd(**real_jnd)
    config, checkpoint = tmp_path / 'jnd.py', tmp_path / 'jnd.pth'
    Config(real_jnd['config']).dump(config)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return model, str(config), str(checkpoint)


@pytest.mark.parametrize('base, host, in_model, inherited', [
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py',
     'mmpretrain.ClsDataPreprocessor', False,
     dict(to_rgb=True, num_classes=1000)),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
     'mmdet.DetDataPreprocessor', True,
     dict(pad_mask=True, pad_size_divisor=32)),
    ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
     'mmdet.DetDataPreprocessor', True, dict(pad_size_divisor=32)),
    ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
     'mmseg.SegDataPreProcessor', True,
     dict(size=(512, 1024), seg_pad_val=255)),
])
def test_stock_configs(trained, tmp_path, base, host, in_model, inherited):
    _, config, checkpoint = trained
    ours = (f"dict(type='mmfeatjnd.DMVJNDPreprocessor', host='{host}', "
            f'jnd=dict(config={config!r}, checkpoint={checkpoint!r}))')
    file = tmp_path / 'config.py'
    file.write_text(f'_base_ = {base!r}\n' +
                    (f'model = dict(data_preprocessor={ours})'
                     if in_model else f'data_preprocessor = {ours}'))
    cfg = Config.fromfile(file)
    cfg = cfg.model.data_preprocessor if in_model else cfg.data_preprocessor
    preprocessor = MODELS.build(cfg)
    for name, value in inherited.items():
        assert getattr(preprocessor, name) == value
    if 'yolox' in base:
        assert preprocessor.batch_augments is not None
    else:
        close(preprocessor.mean.flatten(),
              torch.tensor([123.675, 116.28, 103.53]))


def test_a_checkpoint_has_all_weights(wrap, trained):
    model, config, checkpoint = trained
    loaded = wrap(
        jnd=dict(config=config, checkpoint=checkpoint)).dmv_jnd.model
    for (name, a), b in zip(model.state_dict().items(),
                            loaded.state_dict().values()):
        assert torch.equal(a, b), name


def test_runner_with_a_top_level_preprocessor(configs, trained, tmp_path):
    _, config, checkpoint = trained
    folder = tmp_path / 'images' / 'a'
    folder.mkdir(parents=True)
    for i in range(2):
        Image.fromarray(pixels((32, 32))[0].permute(1, 2, 0).numpy()).save(
            folder / f'{i}.png')
    model = configs[0]('classifier')
    del model['data_preprocessor']
    model['train_cfg'] = dict(augments=dict(type='Mixup', alpha=1.))
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CustomDataset',
            data_root=str(tmp_path / 'images'),
            pipeline=[dict(type='LoadImageFromFile'),
                      dict(type='PackInputs')]))
    cfg = Config(
        dict(
            model=model,
            # as in MMPretrain's configs, which give it no type
            data_preprocessor=dict(
                type='mmfeatjnd.DMVJNDPreprocessor',
                host='mmpretrain.ClsDataPreprocessor',
                jnd=dict(config=config, checkpoint=checkpoint),
                strength=(0.5, 1.0),
                num_classes=4,
                mean=MEAN,
                std=STD,
                to_rgb=True),
            default_scope='mmpretrain',
            work_dir=str(tmp_path / 'work'),
            train_dataloader=loader,
            val_dataloader=loader,
            val_evaluator=dict(type='Accuracy'),
            val_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            custom_hooks=[dict(type='EMAHook')],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01))))
    runner = Runner.from_cfg(cfg)
    preprocessor = runner.model.data_preprocessor
    assert preprocessor.to_rgb and preprocessor.batch_augments is not None
    runner.train()
    saved = torch.load(
        tmp_path / 'work/epoch_1.pth', weights_only=False)['state_dict']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        host = MODELS.build(configs[0]('classifier'))
    assert set(saved) == set(host.state_dict())
    # the config in the work directory builds the same
    dumped = Config.fromfile(next((tmp_path / 'work').glob('*/vis_data/*.py')))
    assert dumped.data_preprocessor.jnd.checkpoint == checkpoint


def test_inference_of_mmdet(configs, trained):
    from mmdet.apis import inference_detector, init_detector
    _, config, checkpoint = trained
    model = configs[0]('detector')
    model['data_preprocessor'].update(
        type='mmfeatjnd.DMVJNDPreprocessor',
        host='mmdet.DetDataPreprocessor',
        jnd=dict(config=config, checkpoint=checkpoint))
    cfg = Config(
        dict(
            model=model,
            test_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='Resize', scale=(32, 32), keep_ratio=True),
                        dict(type='PackDetInputs')
                    ]))))
    detector = init_detector(cfg, device='cpu')
    image = pixels((40, 50))[0].permute(1, 2, 0).numpy()
    results = []
    for test in (True, True, False):
        detector.data_preprocessor.dmv_jnd.test = test
        results.append(
            inference_detector(detector, image).pred_instances.scores)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


# ------------------------------------------------------------------- errors
def test_errors_of_files(wrap, trained, jnd, tmp_path):
    model, config, checkpoint = trained
    with pytest.raises(ValueError, match='no `checkpoint`'):
        wrap(jnd=dict(config=config))
    with pytest.raises(FileNotFoundError, match='no checkpoint.*none.pth'):
        wrap(jnd=dict(config=config, checkpoint='none.pth'))
    with pytest.raises(ValueError, match='not a checkpoint of this'):
        wrap(jnd=dict(jnd(), checkpoint=checkpoint))
    task = jnd()['config']['model']['tasks'][0]['config']
    with pytest.raises(TypeError, match="DMVJND'.*ImageClassifier"):
        wrap(jnd=dict(config=task))


def test_errors_of_settings(wrap):
    for host in ('mmdet.Nothing', 'mmseg.DetDataPreprocessor'):
        with pytest.raises(KeyError, match='ClsDataPreprocessor.*DetDataPre'
                           '.*SegDataPreProcessor'):
            wrap(host)
    with pytest.raises(TypeError, match='not a data preprocessor'):
        wrap('mmdet.MaskRCNN')
    for strength in (-1, (1, 0.5), (1, 2, 3)):
        with pytest.raises(ValueError, match='strength must be'):
            wrap(strength=strength)
    with pytest.raises(ValueError, match='distortion must be one of'):
        wrap(distortion='blur')
    with pytest.raises(ValueError, match=r'image_norm must be dict\(mean'):
        wrap(image_norm=dict(mean=[0]))
    with pytest.raises(TypeError, match='pad_mask'):
        wrap('classifier', pad_mask=True)


def test_errors_of_images(wrap, real_jnd):
    preprocessor = wrap(jnd=real_jnd)
    with pytest.raises(TypeError, match='dict with `inputs`.*got a list'):
        preprocessor([torch.zeros(3, 16, 16)])
    with pytest.raises(TypeError, match=r"got a dict with \['img'\]"):
        preprocessor(dict(img=0))
    with pytest.raises(TypeError, match=r'shapes \[\(2, 3, 16, 16\)\]'):
        preprocessor(dict(inputs=[torch.zeros(2, 3, 16, 16)]))  # views
    with pytest.raises(TypeError, match='`inputs` of dict'):
        preprocessor(dict(inputs=dict(sup=torch.zeros(3, 16, 16))))
    for channels in (1, 4):
        with pytest.raises(ValueError, match=f'with {channels}: convert'):
            preprocessor(dict(inputs=[torch.zeros(channels, 16, 16)]))
    with pytest.raises(ValueError, match=r'one of \(1, 16\) pixels'):
        preprocessor(dict(inputs=[torch.zeros(3, 1, 16)]))
