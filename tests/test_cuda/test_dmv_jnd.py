"""DMV-JND: its estimate, its loss, and the preprocessor of a host."""
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

KINDS = ['classifier', 'detector']


@pytest.fixture
def dmv_jnd(configs):
    """A small DMV-JND of one task, always with the same weights."""

    def make(kind):
        task = dict(
            classifier='ClassificationTask', detector='DetectionTask')[kind]
        scope = dict(classifier='mmpretrain', detector='mmdet')[kind]
        cfg = dict(
            type='mmfeatjnd.DMVJND',
            net=dict(type='mmfeatjnd.DMVJNDNet', widths=(4, 4),
                     strides=(2, 2)),
            tasks=[
                dict(
                    type=f'mmfeatjnd.{task}',
                    name='task',
                    config=dict(
                        default_scope=scope, model=configs[0](kind)))
            ])
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(scope):
            model = MODELS.build(cfg)
        torch.nn.init.normal_(model.net.decoder[-1].weight, std=0.1)
        return cfg, model

    return make


def pixels(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, *s), generator=generator,
                      dtype=torch.uint8) for s in sizes
    ]


@pytest.mark.parametrize('kind', KINDS)
def test_estimate_and_distort(device, dmv_jnd, batch, kind):
    found = []
    for where in (torch.device('cpu'), device):
        model = dmv_jnd(kind)[1].eval().to(where)
        images = torch.stack(pixels((32, 32), (32, 32))).to(where)
        _, samples = batch(kind)
        with torch.no_grad():
            (group, estimate), = model.estimate_batch(
                images, [s.to(where) for s in samples])
            noisy = model.distort(estimate, 'gaussian', 0.5, 1)
            rows = model.to_data_samples(noisy, group.data_samples)
        found.append((estimate.jnd.cpu(), noisy.images.cpu()))
        assert len(rows) == 2 and 'dmv_jnd' in rows[0]
    for a, b in zip(*found):
        torch.testing.assert_close(b, a, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('kind', KINDS)
def test_loss(device, dmv_jnd, batch, kind):
    losses = []
    for where in (torch.device('cpu'), device):
        model = dmv_jnd(kind)[1].train().to(where)
        images = torch.stack(pixels((32, 32), (32, 32))).to(where)
        _, samples = batch(kind)
        out = model.loss(images, [s.to(where) for s in samples])
        sum(v for k, v in out.items() if 'loss' in k).backward()
        assert all(p.grad.isfinite().all() for p in model.net.parameters())
        losses.append(out)
    for name, value in losses[0].items():
        torch.testing.assert_close(
            losses[1][name].detach().cpu(), value.detach(), rtol=2e-2,
            atol=1e-3)


@pytest.mark.parametrize('distortion', ['dmv-jnd', 'gaussian'])
def test_the_preprocessor_of_a_host(device, dmv_jnd, tmp_path, distortion):
    """Images of several sizes, on the CPU as a data loader gives them."""
    cfg, model = dmv_jnd('classifier')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'jnd.pth')
    outputs = []
    for where in ('cpu', device):
        with DefaultScope.overwrite_default_scope('mmdet'):
            preprocessor = MODELS.build(
                dict(
                    type='mmfeatjnd.DMVJNDPreprocessor',
                    host='mmdet.DetDataPreprocessor',
                    jnd=dict(
                        config=dict(model=cfg),
                        checkpoint=str(tmp_path / 'jnd.pth')),
                    distortion=distortion)).to(where)
        images = pixels((32, 32), (24, 32), (32, 32))
        out = preprocessor(dict(inputs=images), False)
        assert out['inputs'].device.type == torch.device(where).type
        outputs.append(out['inputs'].cpu())
    assert outputs[0].shape == (3, 3, 32, 32)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-2, atol=0.5)
