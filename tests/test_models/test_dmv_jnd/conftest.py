"""Tiny random classifiers as tasks."""
import pytest
import torch

from mmfeatjnd.registry import MODELS


def classifier_cfg(classes=4, channels=8, neck=None, **data_preprocessor):
    """A config of MMPretrain; its map is a quarter of the image."""
    data_preprocessor = {
        **dict(mean=[120., 110., 100.], std=[60., 50., 40.], to_rgb=True),
        **data_preprocessor
    }
    return dict(
        default_scope='mmpretrain',
        data_preprocessor=data_preprocessor,
        model=dict(
            type='ImageClassifier',
            backbone=dict(
                type='ResNet_CIFAR',
                depth=18,
                stem_channels=channels,
                base_channels=channels,
                num_stages=2,
                strides=(2, 2),
                dilations=(1, 1),
                out_indices=(1, )),
            neck=neck or dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=classes,
                in_channels=2 * channels)))


def task_cfg(name, config=None, **kwargs):
    return dict(
        type='mmfeatjnd.ClassificationTask',
        name=name,
        config=config or classifier_cfg(),
        **kwargs)


@pytest.fixture
def classifier():
    return classifier_cfg


@pytest.fixture
def build_task():
    """A task with random weights and statistics."""

    def build(config=None, name='a', seed=0, **kwargs):
        torch.manual_seed(seed)
        task = MODELS.build(task_cfg(name, config, **kwargs))
        randomize(task)
        return task.eval()

    return build


@pytest.fixture
def build_dmv_jnd():
    """Two classifiers, called a and b, of different normalization. ``strong``
    makes the JND large enough to leave [0, 255]."""

    def build(tasks=None, seed=0, strong=False, **kwargs):
        torch.manual_seed(seed)
        if tasks is None:
            tasks = [
                task_cfg('a'),
                task_cfg(
                    'b', classifier_cfg(mean=[0.] * 3, std=[255.] * 3))
            ]
        kwargs.setdefault(
            'net', dict(type='mmfeatjnd.DMVJNDNet', widths=(8, 8, 8)))
        model = MODELS.build(
            dict(type='mmfeatjnd.DMVJND', tasks=tasks, **kwargs))
        randomize(model)
        if strong:
            torch.nn.init.normal_(model.net.decoder[-1].weight)
        return model.eval()

    return build


@pytest.fixture
def task_config():
    return task_cfg


def make_images(number, size=(32, 32), seed=0):
    """Smooth random pixels, (number, 3, *size), uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(
        255 * coarse, size, mode='bicubic').clamp(0, 255).byte()


@pytest.fixture
def images():
    return make_images


@torch.no_grad()
def randomize(model):
    """Let what is random react to the image: give batch normalization its
    statistics, and each classifier several labels."""
    pixels = make_images(8)
    for task in getattr(model, 'tasks', [model]):
        host = task.host
        x = host.data_preprocessor(dict(inputs=pixels))['inputs']
        normalize_batches(host, x)
        host.head.fc.bias -= host(x).mean(0)
    if hasattr(model, 'net'):
        normalize_batches(
            model.net, pixels / 127.5 - 1, torch.rand(8, 1, 32, 32))


def normalize_batches(module, *inputs):
    kind = torch.nn.BatchNorm2d
    norms = [m for m in module.modules() if isinstance(m, kind)]
    for norm in norms:
        norm.train().momentum = 1.
    module(*inputs)
    for norm in norms:
        norm.eval().momentum = 0.1
