"""tools/estimate_metric.py and tools/analysis_tools/split_guide.py, on
images and stock hosts made small."""
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import build_model, host_hash
from mmfeatjnd.apis.curve import OperationTest
from mmfeatjnd.apis.data import split_dataloader
from mmfeatjnd.apis.metric import estimate_metric, metric_of, metric_rows
from mmfeatjnd.functional import log_sensitivity
from mmfeatjnd.models.metric_file import load_metric


def of(given):
    return Config.fromfile(given[0]), str(given[1])


def model_of(given):
    cfg, checkpoint = of(given)
    model = build_model(cfg)
    model.load_state_dict(torch.load(checkpoint))
    return model.eval()


def test_a_file_of_a_classifier(run_tool, small, tmp_path, capfd):
    out = tmp_path / 'new/m.safetensors'
    run_tool('estimate_metric.py', *small, '--images', 8, '--draws', 3,
             '--split', 'backbone.layer1', '--block', 4, '--out', out)
    said = capfd.readouterr().out
    assert '| 0 | 8 | 1024 | 8.000 | 8 | 0.0% | 8 | 0.0% |' in said
    assert f'Saved to {out}' in said
    metric = load_metric(out, model_of(small), 'r2')
    assert (metric.images, metric.draws, metric.seed) == (8, 3, 0)
    assert metric.configured == (0, )
    level = metric.levels[0]
    # pictures of the test's size, without the crop of the training
    assert level.tokens == 32 * 32 and level.elements_per_pixel == 8
    assert level.frequencies.block == 4 and level.frequencies.blocks == 64
    assert level.frequencies.metric.shape == (16, 8, 8)
    # an orthonormal transform keeps what it transforms
    torch.testing.assert_close(level.frequencies.metric.mean(0), level.metric,
                               rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(level.frequencies.mean[0], 4 * level.mean)
    torch.testing.assert_close(
        level.std, level.covariance.diagonal().sqrt())


def test_a_pooled_classifier_is_told(small, capfd):
    """Behind it lies the mean over the tokens, and 4 classes: 3 directions,
    and noise with the mean 0 costs nothing."""
    metric = estimate_metric(*of(small), images=8)
    row, = metric_rows(metric)
    assert row['channels'] == 16
    assert row['visible'] == {1e-3: 3, 1e-6: 3}
    assert row['null_share'][1e-6] == 13 / 16
    assert row['pooled'] == pytest.approx(1)
    out, err = capfd.readouterr()
    assert '16 different gradients for 16 channels are too few' in out + err
    row, = metric_rows(
        estimate_metric(*of(small), images=8, split='backbone.layer1'))
    assert row['pooled'] < 0.9
    assert 'too few' not in ''.join(capfd.readouterr())


def test_by_another_way(small):
    """The Fisher information of a softmax without draws, from the Jacobian of
    its logits; and the features' moments by NumPy."""
    cfg, checkpoint = of(small)
    metric = estimate_metric(cfg, checkpoint, 8, 100, 'backbone.layer1')
    level = metric.levels[0]
    cfg.test_dataloader.batch_size = 8
    test = OperationTest(cfg, checkpoint)
    batch, = split_dataloader(test.runner, 'train', sample=8)
    model = test.model
    backbone = model.backbone
    with torch.no_grad():
        x = model.data_preprocessor(batch, False)['inputs']
        f = backbone.layer1(backbone.relu(backbone.norm1(backbone.conv1(x))))
    f.requires_grad_()
    logits = model.head.fc(backbone.layer2(f).mean((2, 3)))
    rows = torch.stack([
        torch.autograd.grad(y, f, retain_graph=True)[0]
        for y in logits.sum(0)
    ]).movedim(2, -1).reshape(4, 8, -1, 8).double()  # class, image, token, C
    p = logits.detach().softmax(1).double()
    information = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    exact = torch.einsum('kbti,bkl,lbtj->ij', rows, information, rows) / (
        rows.shape[1] * rows.shape[2])
    assert (level.metric - exact).norm() < 0.2 * exact.norm()
    f = f.detach().movedim(1, -1).reshape(-1, 8).double().numpy()
    np.testing.assert_allclose(level.mean, f.mean(0), rtol=1e-5)
    np.testing.assert_allclose(level.covariance, np.cov(f.T, bias=True),
                               rtol=1e-4, atol=1e-7)


def test_log_w_is_of_the_deviations_in_the_file(small, monkeypatch):
    """Whatever the batches are."""
    import mmfeatjnd.apis.metric as module
    drawn = []

    def keep(*args):
        features, draws = original(*args)
        draws = list(draws)
        drawn.append(sum(d[0][0].square() for d in draws) / len(draws))
        return features, iter(draws)

    original = module.task_gradients
    monkeypatch.setattr(module, 'task_gradients', keep)
    level = estimate_metric(*of(small), 8, 2, 'backbone.layer1').levels[0]
    assert [len(x) for x in drawn] == [5, 3]
    log_w = torch.cat([log_sensitivity(x, level.std) for x in drawn])
    assert level.log_w == pytest.approx(log_w.mean().item(), rel=1e-5)
    # 32 x 32 tokens are the grid
    torch.testing.assert_close(level.log_w_map, log_w.mean(0)[0])


@pytest.mark.parametrize('size', [3, 8])
def test_the_size_of_the_batches_does_not_matter(small, size):
    cfg, checkpoint = of(small)
    one = estimate_metric(cfg, checkpoint, 8, split='backbone.layer1')
    cfg.test_dataloader.batch_size = size
    two = estimate_metric(cfg, checkpoint, 8, split='backbone.layer1')
    for a, b in zip(one.levels[0][:-1], two.levels[0][:-1]):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_laterals_of_a_detector(boxes, run_tool, tmp_path, capfd):
    """Each reads as many directions as it has channels, and M sees those."""
    out = tmp_path / 'm.safetensors'
    run_tool('estimate_metric.py', *boxes, '--images', 8, '--draws', 16,
             '--split', 'backbone', '--out', out)
    model = model_of(boxes)
    metric = load_metric(out, model, levels=[0, 3])
    assert list(metric.levels) == [0, 1, 2, 3]
    for index, level in metric.levels.items():
        lateral = model.neck.lateral_convs[index].conv.weight.flatten(1)
        hidden = torch.linalg.svd(lateral.double())[2][16:]
        m = level.metric.double()
        # M is rounded to float32
        assert (hidden @ m @ hidden.T).trace().abs() < 1e-6 * m.trace()
        rank, = [r['visible'][1e-6] for r in metric_rows(metric)
                 if r['level'] == index]
        assert rank == min(level.channels, 16)
    # Padding is no content: pictures of 64x40 in a batch with 64x64
    sizes = [(64, 40)] * 4 + [(64, 64)] * 4
    for index, stride in enumerate((4, 8, 16, 32)):
        tokens = [-(-h // stride) * -(-w // stride) for h, w in sizes]
        level = metric.levels[index]
        assert level.tokens == pytest.approx(np.mean(tokens))
        assert level.elements_per_pixel == pytest.approx(
            sum(tokens) * level.channels / sum(h * w for h, w in sizes))
    assert '| 3 | 64 |' in capfd.readouterr().out


def test_levels_that_nothing_reads(boxes, run_tool, tmp_path):
    run_tool('estimate_metric.py', *boxes, '--images', 2, '--levels', 1, 2,
             '--cfg-options', 'model.neck.start_level=2', '--out',
             tmp_path / 'm')
    metric = load_metric(tmp_path / 'm', levels=[1])
    assert list(metric.levels) == [2] and metric.configured == (1, 2)


def test_a_guide(boxes, run_tool, tmp_path, capfd):
    out = tmp_path / 'guide.json'
    run_tool('analysis_tools/split_guide.py', *boxes, '--images', 4,
             '--splits', 'backbone.layer1', 'backbone', 'fpn', '--out', out)
    rows = json.loads(out.read_text())
    assert [r['split'] for r in rows] == ['backbone.layer1', 'backbone', 'fpn']
    before = [r['macs_before'] for r in rows]
    assert before == sorted(before) and before[0] > 0
    whole = {r['macs_before'] + r['macs_after'] for r in rows}
    assert len(whole) == 1
    assert len(rows[1]['levels']) == 4
    assert rows[1]['elements_per_pixel'] == pytest.approx(
        sum(r['elements_per_pixel'] for r in rows[1]['levels']))
    assert rows[1]['levels'][3]['visible']['0.001'] <= 16
    said = capfd.readouterr().out
    assert '| `backbone` | ' in said and f'Saved to {out}' in said


def test_multiply_adds_by_hand(small, run_tool, tmp_path):
    out = tmp_path / 'guide.json'
    run_tool('analysis_tools/split_guide.py', *small, '--images', 4,
             '--splits', 'backbone.conv1', 'backbone', '--out', out)
    stem, whole = json.loads(out.read_text())
    assert stem['macs_before'] == 32 * 32 * 8 * 3 * 9
    assert whole['macs_after'] == 16 * 4  # the linear head
    # four convolutions of a stage; the second has a shortcut, and its first
    # has half of the inputs
    layer1 = 4 * 32 * 32 * 8 * 8 * 9
    layer2 = 16 * 16 * 16 * (8 * 9 + 3 * 16 * 9 + 8)
    assert whole['macs_before'] == stem['macs_before'] + layer1 + layer2


@pytest.mark.parametrize('argv, message', [
    (['--split', 'backbone.layer7'], "no module 'backbone.layer7'"),
    (['--cfg-options', 'train_dataloader=None'], 'has no train_dataloader'),
    (['--split', 'head.fc', '--levels', '3'], 'levels='),
])
def test_what_cannot_be_estimated(run_tool, small, tmp_path, argv, message):
    with pytest.raises(SystemExit, match=message):
        run_tool('estimate_metric.py', *small, '--images', 2, *argv, '--out',
                 tmp_path / 'm')
    assert not (tmp_path / 'm').exists()


def test_regions_have_no_metric(boxes):
    cfg, checkpoint = of(boxes)
    with pytest.raises(ValueError, match='Use a split before them'):
        estimate_metric(cfg, checkpoint, 2,
                        split='roi_head.bbox_roi_extractor')


def test_wrong_arguments(run_tool, small, tmp_path, capsys):
    for argv, message in ((['--images', '0'], 'less than 1'),
                          (['--block', '0'], 'less than 1'),
                          ([], 'required: --out')):
        with pytest.raises(SystemExit) as error:
            run_tool('estimate_metric.py', *small, *argv)
        assert error.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match='cannot write'):
        run_tool('estimate_metric.py', *small, '--out', tmp_path)
    with pytest.raises(ValueError, match='draws=0'):
        metric_of(OperationTest(*of(small)).neck, [], draws=0)


def test_the_host_stays_as_it_was(small):
    cfg, checkpoint = of(small)
    test = OperationTest(cfg, checkpoint)
    before = host_hash(test.model)
    hooks = [len(m._forward_hooks) for m in test.model.modules()]
    wanted = [p.requires_grad for p in test.model.parameters()]
    metric = metric_of(test.neck, split_dataloader(test.runner, 'train', 2))
    assert metric.host_hash == host_hash(test.model) == before
    assert hooks == [len(m._forward_hooks) for m in test.model.modules()]
    assert wanted == [p.requires_grad for p in test.model.parameters()]


# ----------------------------------------------------------- noise by the file
def test_a_curve_by_the_metric(run_tool, boxes, tmp_path, capfd):
    """Visible strength and the distortions that need the file, of a plain
    host."""
    out = tmp_path / 'm.safetensors'
    run_tool('estimate_metric.py', *boxes, '--images', 4, '--out', out)
    capfd.readouterr()
    curve = ['analysis_tools/jnd_curve.py', *boxes, '--seeds', 1,
             '--nrmse', 0.5, '--work-dir', tmp_path / 'work']
    run_tool(*curve, '--distortions', 'gaussian', 'closed-form', 'null-space',
             'lateral', '--task-metric', out, '--out', tmp_path / 'rms')
    run_tool(*curve, '--distortions', 'gaussian', 'closed-form',
             '--definition', 'visible', '--task-metric', out,
             '--out', tmp_path / 'visible')
    for name, distortions in (('rms', 4), ('visible', 2)):
        rows = json.loads((tmp_path / name / 'curve.json').read_text())[1:]
        assert len(rows) == distortions
        for row in rows:
            # a level without a null space is left alone
            share = 0.75 if row['distortion'] == 'null-space' else 1
            assert row['nrmse_measured'] == pytest.approx(share / 2, rel=1e-3)
    for argv in (['--distortions', 'closed-form'],
                 ['--definition', 'visible']):
        with pytest.raises(SystemExit, match=f'{argv[-1]} needs --task-met'):
            run_tool(*curve, *argv, '--out', tmp_path / 'none')
