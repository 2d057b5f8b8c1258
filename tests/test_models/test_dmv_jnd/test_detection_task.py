"""Detection and instance segmentation as tasks of DMV-JND."""
import copy
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmfeatjnd.datasets import generate_shapes
from mmfeatjnd.models import DMVJND, DetectionTask
from mmfeatjnd.models.dmv_jnd.detection_task import (
    box_masks,
    detection_agreement,
    objectness_map,
)
from mmfeatjnd.models.step_counter import StepCounter

ROOT = Path(__file__).resolve().parents[3]
SIZE = 32
TASK = dict(type='mmfeatjnd.DetectionTask', score_thr=0.2, name='detector')
NET = dict(type='mmfeatjnd.DMVJNDNet', widths=(4, 4), strides=(2, 2))


def scoped(model):
    return dict(default_scope='mmdet', model=model)


def box_detector(cfg):
    """The same without its mask head."""
    cfg['type'] = 'mmdet.FasterRCNN'
    for key in ('mask_roi_extractor', 'mask_head'):
        del cfg['roi_head'][key]
    return cfg


@pytest.fixture(params=['masks', 'boxes'])
def task(request, configs):
    cfg = configs[0]('detector')
    if request.param == 'boxes':
        cfg = box_detector(cfg)
    torch.manual_seed(0)
    task = DetectionTask(scoped(cfg), score_thr=0.2)
    task.init_weights()
    # or all proposals fall together
    torch.nn.init.normal_(task.host.rpn_head.rpn_reg.weight, std=0.3)
    return task.train()


def pixels(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        255 * torch.rand(3, *size, generator=generator) for size in sizes
    ]


def batch_of(number, size=(SIZE, SIZE)):
    return torch.stack(pixels(*[size] * number))


def found(reference):
    return [s.gt_instances for s in reference.labels.data_samples]


# ------------------------------------------------------- the pure functions
def test_objectness_by_hand():
    covers = torch.tensor([
        [[1, 1, 0], [0, 0, 0]],
        [[0, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 0]],
    ]).bool()
    scores = torch.tensor([.5, .9, .3])
    expected = torch.tensor([[[.5, .9, .9], [0, .3, 0]]])
    assert torch.equal(objectness_map(scores, covers), expected)
    empty = objectness_map(scores[:0], covers[:0])
    assert empty.shape == (1, 2, 3) and not empty.any()


def test_boxes_cover_the_pixels_whose_centres_they_hold():
    boxes = torch.tensor([[0.6, 0.4, 3.5, 1.5], [-5., 1., 1., 9.]])
    masks = box_masks(boxes, 2, 4)
    assert masks.int().tolist() == [[[0, 1, 1, 0], [0, 0, 0, 0]],
                                    [[0, 0, 0, 0], [1, 0, 0, 0]]]


def detections(*rows):
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return InstanceData(bboxes=rows[:, :4], labels=rows[:, 4].long())


def test_agreement_by_hand():
    a, b = [0, 0, 10, 10, 0], [20, 20, 30, 30, 1]
    near = [0, 2, 10, 12, 0]  # IoU 80 / 120
    far = [0, 5, 10, 15, 0]  # IoU 50 / 150

    def agreement(x, y, **kwargs):
        value = detection_agreement(detections(*x), detections(*y), **kwargs)
        assert value.shape == ()
        return value.item()

    assert agreement([a, b], [b, a]) == 1
    assert agreement([], []) == 1
    assert agreement([a], []) == 0 and agreement([], [a]) == 0
    assert agreement([a], [near]) == 1 and agreement([a], [far]) == 0
    assert agreement([a], [near], iou_thr=0.7) == 0
    assert agreement([a], [[*a[:4], 1]]) == 0  # another label
    assert agreement([a], [a, b]) == pytest.approx(2 / 3)
    # two on one object are one match: 2 * 1 / (2 + 1)
    assert agreement([a, near], [a]) == pytest.approx(2 / 3)


# ----------------------------------------------------------------- the task
def test_clean_images_agree_with_themselves(task):
    images = batch_of(2)
    reference = task.reference(images)
    assert all(len(truth) > 1 for truth in found(reference))
    assert task.compare(images, reference)['agreement'].tolist() == [1, 1]
    other = task.compare(255 - images, reference)['agreement']
    assert ((other >= 0) & (other < 1)).all()


def test_loss_is_the_hosts_own(task):
    """By the host's own way, and the same whenever it is asked."""
    images = batch_of(2)
    reference = task.reference(images)
    truth, seed = reference.labels
    state = torch.random.get_rng_state()
    value = task.loss(images, reference)
    assert torch.equal(torch.random.get_rng_state(), state)
    pre = task.host.data_preprocessor
    inputs = (images.flip(1) - pre.mean) / pre.std  # the host takes RGB
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task.host.training = True
        expected, _ = task.host.parse_losses(task.host.loss(inputs, truth))
        task.host.training = False
    assert value > 0 and torch.allclose(value, expected, rtol=1e-4)
    assert task.loss(images, reference) == value
    task.loss_weight = 3.
    assert torch.allclose(task.loss(images, reference), 3 * value)


def test_attention_of_masks_and_boxes(task):
    images = batch_of(1)
    has_masks = task.host.with_mask
    maps = {}
    for attend_to in ('masks', 'boxes'):
        task.attend_to = attend_to
        reference = task.reference(images)
        maps[attend_to], = reference.attention
    truth, = found(reference)
    boxes = box_masks(truth.bboxes, SIZE, SIZE)
    by_hand = (boxes * truth.scores[:, None, None]).amax(0)[None]
    assert torch.allclose(maps['boxes'], by_hand)
    assert maps['boxes'].max() == truth.scores.max()
    if has_masks:
        masks = torch.as_tensor(truth.masks.masks)
        by_hand = (masks * truth.scores[:, None, None]).amax(0)[None]
    assert torch.allclose(maps['masks'], by_hand)


def test_images_that_the_host_pads(task):
    """To its size divisor: what is found is of the image."""
    images = batch_of(2, (24, 40))
    reference = task.reference(images)
    m = reference.attention
    assert m.shape == (2, 1, 24, 40) and 0 <= m.min() and m.max() <= 1
    limit = torch.tensor([40, 24, 40, 24])
    for truth in found(reference):
        assert (truth.bboxes >= 0).all() and (truth.bboxes <= limit).all()
    assert task.compare(images, reference)['agreement'].tolist() == [1, 1]
    images.requires_grad_()
    task.loss(images, reference).backward()
    assert images.grad.isfinite().all() and images.grad.flatten(1).any(1).all()


def test_what_is_found_does_not_depend_on_the_data_samples(task, batch):
    """Nor are they changed, even if the file had another size."""
    _, samples = batch('detector')
    for sample in samples:
        sample.set_metainfo(
            dict(img_shape=(9, 9), ori_shape=(64, 64), scale_factor=(.5, .5)))
    before = copy.deepcopy(samples)
    images = batch_of(2)
    with_them = task.reference(images, samples)
    for x, y in zip(found(with_them), found(task.reference(images))):
        assert torch.equal(x.bboxes, y.bboxes)
    task.loss(images, with_them)
    for sample, old in zip(samples, before):
        assert sample.metainfo == old.metainfo
        assert sample.keys() == old.keys()
        assert torch.equal(sample.gt_instances.bboxes,
                           old.gt_instances.bboxes)
    with pytest.raises(ValueError, match='1 images and 2 data samples'):
        task.reference(images[:1], samples)


def test_without_detections(task):
    task.labeller.score_thr = 1.1
    images = batch_of(1)
    reference = task.reference(images)
    assert len(found(reference)[0]) == 0
    assert not reference.attention[0].any()
    assert task.compare(images, reference)['agreement'].tolist() == [1]
    assert task.loss(images, reference).isfinite()


def test_the_host_stays_in_eval_mode(task):
    """But for its own flag, and for its loss only: DINO reads it."""
    modes = []
    task.host.backbone.register_forward_hook(
        lambda *_: modes.append((task.host.training, any(
            child.training for child in task.host.children()))))
    images = batch_of(1)
    reference = task.reference(images)
    task.loss(images, reference)
    task.compare(images, reference)
    assert modes == [(False, False), (True, False), (False, False)]
    assert not task.host.training


def test_draws_of_a_step_are_those_of_the_resumed_one(task):
    """The samplers of the heads draw alike on the clean and the distorted
    images, otherwise in each step, and as before after resuming."""
    images = batch_of(1)

    def seeds(task, steps, calls):
        found = []
        for step in steps:
            MessageHub.get_instance('run').update_info('iter', step)
            found += [task.reference(images).labels.seed for _ in range(calls)]
        return found

    first = seeds(task, (3, 4, 5), 2)
    assert len(set(first)) == 6
    resumed = copy.deepcopy(task)
    resumed.steps = StepCounter()
    assert seeds(resumed, (4, 5), 2) == first[2:]
    MessageHub._instance_dict.clear()


def test_gradient_reaches_the_net(configs):
    torch.manual_seed(0)
    model = DMVJND([dict(TASK, config=scoped(configs[0]('detector')))], NET)
    model.init_weights()
    model.train()
    images = pixels((SIZE, SIZE), (24, 40))
    # of the task alone: the other two losses need no detector
    loss = model.loss(images)['loss_task']
    loss.backward()
    grads = [p.grad for p in model.net.parameters()]
    assert all(g.isfinite().all() for g in grads)
    assert any(g.any() for g in grads)
    assert all(p.grad is None for p in model.tasks.parameters())
    model.eval()
    rows = [s.dmv_jnd['tasks']['detector'] for s in model.predict(images)]
    assert all(0 <= row['agreement'] <= 1 for row in rows)


def test_bad_arguments(configs):
    with pytest.raises(TypeError, match="'cls'.*ImageClassifier.*Classifica"):
        DetectionTask(
            dict(
                default_scope='mmpretrain', model=configs[0]('classifier')),
            name='cls')
    with pytest.raises(ValueError, match="'masks' or 'boxes', but got 'cam'"):
        DetectionTask(scoped(configs[0]('detector')), attend_to='cam')


# --------------------------------------------------------------- end to end
def test_shipped_config_trains_and_tests(configs, tmp_path, monkeypatch):
    """With a small host and small data; crops of several sizes in a batch."""
    generate_shapes(tmp_path / 'shapes', 2, 2, 64, progress=False)
    cfg = Config.fromfile(
        ROOT / 'configs/dmv_jnd/dmv-jnd_mask-rcnn_r18_dsb2018.py')
    host = Config(scoped(configs[0]('detector')))
    host.dump(tmp_path / 'host.py')
    torch.manual_seed(0)
    task = DetectionTask(str(tmp_path / 'host.py'))
    task.host.init_weights()
    torch.save(task.host.state_dict(), tmp_path / 'host.pth')

    cfg.model.tasks[0].update(
        config=str(tmp_path / 'host.py'),
        checkpoint=str(tmp_path / 'host.pth'),
        score_thr=0.2)
    cfg.model.net.widths = (4, 4, 4)
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        loader = cfg[f'{name}_dataloader']
        loader.update(
            batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=f'{tmp_path}/shapes/',
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(
                classes=('disc', 'square', 'triangle', 'star', 'ring')))
    cfg.train_dataloader.dataset.pipeline[2].update(
        crop_type='absolute_range', crop_size=(32, 64))
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler.total_steps = 1
    cfg.work_dir = str(tmp_path / 'w')
    cfg.dump(tmp_path / 'config.py')

    monkeypatch.setenv('LOCAL_RANK', '0')  # which the tools set

    def run_tool(name, *args):
        path = str(ROOT / 'tools' / name)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        runpy.run_path(path, run_name='__main__')

    run_tool('train.py', tmp_path / 'config.py')
    checkpoint = tmp_path / 'w/epoch_1.pth'
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    weights = task.host.state_dict()
    assert all(
        torch.equal(state[f'tasks.0.host.{key}'], value)
        for key, value in weights.items())
    run_tool('test.py', tmp_path / 'config.py', checkpoint, '--work-dir',
             tmp_path / 't')
    log = next((tmp_path / 't').glob('*/*.json')).read_text()
    for name in ('rca/host', 'rca/mean', 'psnr', 'jnd_magnitude'):
        assert f'"{name}"' in log
