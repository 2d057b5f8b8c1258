import pytest
import torch
from mmpretrain.structures import DataSample

from mmfeatjnd.functional.images import resize_images
from mmfeatjnd.models import CheckpointError


def by_hand(task, x):
    """Label and stretched CAM of normalized images, from the host's modules
    one by one."""
    host = task.host
    feature = host.backbone(x)[-1]
    if hasattr(host.neck, 'convs'):
        feature = host.neck.convs(feature)
    logits = host(x)  # the host's own way
    labels, maps = logits.argmax(1), []
    for label, channels in zip(labels, feature):
        weight = host.head.fc.weight[label]
        cam = sum(w * channel for w, channel in zip(weight, channels))
        maps.append((cam - cam.min()) / (cam.max() - cam.min()))
    return logits, labels, torch.stack(maps)[:, None]


NECKS = [
    None,  # MMPretrain's GlobalAveragePooling
    dict(type='mmfeatjnd.CAMNeck', in_channels=16),
    dict(
        type='mmfeatjnd.CAMNeck', in_channels=16, widths=(16, ), dropout=0.5),
]


@pytest.mark.parametrize('neck', NECKS)
@torch.no_grad()
def test_label_and_map_by_hand(build_task, classifier, images, neck):
    task = build_task(classifier(neck=neck))
    pixels = images(6)
    mean, std = torch.tensor([[120., 110., 100.], [60., 50., 40.]])
    x = (pixels.flip(1) - mean[:, None, None]) / std[:, None, None]
    logits, labels, maps = by_hand(task, x)
    assert len(set(labels.tolist())) > 1
    reference = task.reference(pixels.float())
    assert torch.equal(reference.labels, labels)
    assert reference.attention.shape == (6, 1, 8, 8)
    torch.testing.assert_close(
        reference.attention, maps, rtol=1e-4, atol=1e-5)
    # eq. (8): the cross-entropy against these labels
    other = task.reference(images(6, seed=1).float())
    expected = -logits.log_softmax(1)[range(6), other.labels].mean()
    torch.testing.assert_close(task.loss(pixels.float(), other), expected)
    found = task.compare(pixels.float(), other)
    assert torch.equal(found['label'], labels)
    assert torch.equal(found['reference_label'], other.labels)
    assert found['agreement'].tolist() == [
        float(a == b) for a, b in zip(labels, other.labels)
    ]
    assert 0 < found['agreement'].sum() < 6


def test_the_host_sees_numbers_normalized_its_own_way(build_task, classifier):
    pixels = torch.tensor([10., 20., 40.])[:, None, None].expand(1, 3, 8, 8)
    seen = []
    for kwargs in (dict(mean=[40., 10., 0.], std=[1., 5., 2.], to_rgb=True),
                   dict(mean=[0.] * 3, std=[10.] * 3, to_rgb=False)):
        task = build_task(classifier(**kwargs))
        task.host.backbone.register_forward_pre_hook(
            lambda _, args: seen.append(args[0][0, :, 0, 0].tolist()))
        task.reference(pixels)
    assert seen == [[0., 2., 5.], [1., 2., 4.]]


@torch.no_grad()
def test_input_size(build_task, images):
    pixels = images(4).float()
    assert build_task(input_size=16).input_size == (16, 16)
    task = build_task(input_size=(24, 16))
    plain = build_task()
    reference = task.reference(pixels)
    assert reference.attention.shape == (4, 1, 6, 4)
    expected = plain.reference(resize_images(pixels, (24, 16)))
    assert torch.equal(reference.labels, expected.labels)
    torch.testing.assert_close(reference.attention, expected.attention)
    torch.testing.assert_close(
        task.loss(pixels, reference),
        plain.loss(resize_images(pixels, (24, 16)), reference))


def test_a_stock_classifier(build_task, images, tmp_path):
    """Any config of MMPretrain that ends in pooling and a linear layer; the
    task agrees with the host's own prediction."""
    path = tmp_path / 'stock_resnet.py'
    path.write_text("""_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    'mmpretrain::_base_/datasets/cifar10_bs16.py',
    'mmpretrain::_base_/default_runtime.py']
model = dict(backbone=dict(stem_channels=8, base_channels=8),
             head=dict(in_channels=64))
""")
    task = build_task(str(path), name=None)
    assert (task.name, task.num_classes) == ('stock_resnet', 10)
    assert task.host.data_preprocessor.mean.flatten().tolist() == \
        pytest.approx([125.307, 122.961, 113.8575])
    pixels = images(5)
    samples = [DataSample() for _ in pixels]
    predicted = task.host.test_step(dict(inputs=pixels, data_samples=samples))
    labels = task.reference(pixels.float()).labels
    assert labels.tolist() == [int(s.pred_label) for s in predicted]


def test_gradients_reach_the_image_alone(build_task, images):
    task = build_task()
    pixels = images(2).float().requires_grad_()
    reference = task.reference(pixels)
    assert not reference.attention.requires_grad
    task.loss(pixels, reference).backward()
    assert pixels.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in task.parameters())


def test_the_host_never_trains(build_task, images):
    task = build_task()
    state = {k: v.clone() for k, v in task.state_dict().items()}
    for module in (task.train(), torch.nn.ModuleList([task]).train()):
        assert not any(m.training for m in task.host.modules())
        task.loss(images(4).float(), task.reference(images(4).float()))
    assert all(torch.equal(v, state[k]) for k, v in task.state_dict().items())


# -------------------------------------------------------------- checkpoints
def test_init_weights_loads_the_checkpoint(build_task, tmp_path):
    source, path = build_task(), str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict=source.host.state_dict()), path)
    task = build_task(seed=1, checkpoint=path)
    state = task.host.state_dict()
    expected = source.host.state_dict()
    assert any(not torch.equal(state[k], v) for k, v in expected.items())
    task.init_weights()
    assert all(torch.equal(state[k], v) for k, v in expected.items())


def test_without_a_checkpoint_the_config_initializes(build_task, classifier):
    config = classifier()
    config['model']['head']['init_cfg'] = dict(
        type='Constant', layer='Linear', val=0.25)
    task = build_task(config)
    task.init_weights()
    assert (task.host.head.fc.weight == 0.25).all()


def test_checkpoints_that_do_not_fit(build_task, classifier, tmp_path):
    missing = str(tmp_path / 'epoch_9.pth')
    task = build_task(checkpoint=missing)  # may be tested without
    with pytest.raises(FileNotFoundError, match="'a'.*epoch_9.pth"):
        task.init_weights()
    path = str(tmp_path / 'other.pth')
    torch.save(build_task(classifier(classes=7)).host.state_dict(), path)
    with pytest.raises(CheckpointError, match="(?s)'a'.*head.fc.weight"):
        build_task(checkpoint=path).init_weights()


# ------------------------------------------------------------------- errors
def test_classifiers_without_a_map(build_task, classifier):
    no_neck, two_layers = classifier(), classifier()
    no_neck['model'].update(neck=None)
    two_layers['model']['head'].update(
        type='StackedLinearClsHead', mid_channels=[16])
    for config, what in ((no_neck, 'the neck is NoneType'),
                         (two_layers, '`fc` LinearBlock')):
        with pytest.raises(ValueError, match=f"'a'.*{what}.*CAMNeck"):
            build_task(config)
    with pytest.raises(FileNotFoundError, match='no_such_config.py'):
        build_task('no_such_config.py')
