"""Curves in several processes are those of one.

Run as a script, this file is one of the processes.
"""
import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank

from mmfeatjnd.apis import OperationTest, build_model, measure_curve
from mmfeatjnd.apis.curve import row_line
from mmfeatjnd.cli.launch import distributed
from mmfeatjnd.datasets import generate_shapes
from mmfeatjnd.models import Perturbation, Quantization

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 7  # two processes have four each: one comes twice


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def in_two_processes(command, cwd):
    """What they print."""
    env = dict(
        os.environ,
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='',
        PYTHONPATH=str(ROOT),
        PORT=free_port(),
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        env.pop(name, None)
    done = subprocess.run([str(x) for x in command], cwd=cwd, env=env,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_same(one, two):
    """Equal but for what rounds otherwise in a batch of other images."""
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two)
        one, two = list(one.values()), list(two.values())
    if isinstance(one, list):
        assert len(one) == len(two)
        for x, y in zip(one, two):
            assert_same(x, y)
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-6, nan_ok=True)
    else:
        assert one == two


def random_weights(model):
    torch.manual_seed(0)
    for name, p in model.named_parameters():
        if 'estimators' not in name:
            torch.nn.init.normal_(p, std=1 / max(p[0].numel(), 4)**0.5)


@pytest.fixture(scope='module')
def classifier(small_classifier):
    """A config, its file and a checkpoint: 7 images in batches of 2."""
    cfg, root = small_classifier
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader.batch_size = 2
    cfg.test_dataloader.dataset.indices = IMAGES
    cfg.work_dir = str(root / 'work')
    model = build_model(cfg.copy())
    random_weights(model)
    model.neck.estimators[0].initial.fill_(1)
    torch.save(dict(state_dict=model.state_dict()), root / 'model.pth')
    # its answer is the same for all images: as far apart as those of a
    # trained one, noise moves it
    test = OperationTest(cfg, str(root / 'model.pth'))
    odds = []
    for batch in test.dataloader():
        with test.batch(batch, []) as (samples, _):
            odds += [s.pred_score.double().log() for s in samples]
    odds = torch.stack(odds) @ torch.tensor([1., -1.], dtype=torch.float64)
    head = model.head.fc
    head.bias.data[0] -= odds.mean()
    for p in head.parameters():
        p.data *= 3 / odds.std()
    torch.save(dict(state_dict=model.state_dict()), root / 'model.pth')
    cfg.dump(root / 'config.py')
    return cfg, root / 'config.py', root / 'model.pth'


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """The same of a Mask R-CNN, which finds some of what is annotated: what it
    has found itself."""
    root = tmp_path_factory.mktemp('detector')
    generate_shapes(root / 'shapes', 1, IMAGES, 64, progress=False)
    cfg = Config.fromfile(ROOT / 'configs/demo/featjnd_tiny_shapes.py')
    file = root / 'shapes/annotations/instances_val.json'
    # one by one: its rounding makes other detections in another batch
    cfg.test_dataloader.batch_size = 1
    cfg.test_dataloader.dataset.data_root = f'{root}/shapes/'
    cfg.test_evaluator.update(ann_file=str(file), metric='bbox')
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = None
    cfg.param_scheduler = None
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.neck.in_channels = [8, 16, 32, 64]
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    cfg.work_dir = str(root / 'work')
    model = build_model(cfg.copy())
    random_weights(model)
    torch.save(dict(state_dict=model.state_dict()), root / 'model.pth')
    test = OperationTest(cfg, str(root / 'model.pth'))
    truth = json.loads(file.read_text())
    truth['annotations'] = []
    ids = {i + 1: c['id'] for i, c in enumerate(truth['categories'])}
    for batch in test.dataloader():
        with test.batch(batch, []) as ((sample, ), _):
            found = sample.pred_instances
            for box, label in zip(found.bboxes.tolist(),
                                  found.labels.tolist()):
                x0, y0, x1, y1 = box
                truth['annotations'].append(
                    dict(
                        id=len(truth['annotations']) + 1,
                        image_id=sample.img_id,
                        category_id=ids[label + 1],
                        iscrowd=0,
                        area=(x1 - x0) * (y1 - y0),
                        bbox=[x0, y0, x1 - x0, y1 - y0],
                        segmentation=[[x0, y0, x1, y0, x1, y1, x0, y1]]))
    file.write_text(json.dumps(truth))
    cfg.dump(root / 'config.py')
    return cfg, root / 'config.py', root / 'model.pth'


# ----------------------------------------------------------------- the tools
def lines_of(output):
    return [x for x in output.splitlines() if ' seed ' in x or 'clean:' in x]


@pytest.mark.slow
def test_jnd_curve(classifier, tmp_path, run_tool, capfd):
    _, *files = classifier
    asked = ['--distortions', 'gaussian', 'featjnd', 'permuted',
             '--nrmse', '0.5', '2', '--seeds', '2', '--nats']
    run_tool('analysis_tools/jnd_curve.py', *files, *asked, '--out',
             tmp_path / 'one')
    alone = lines_of(capfd.readouterr().out)
    output = in_two_processes(
        ['bash', ROOT / 'tools/dist_curve.sh', 'jnd_curve', *files, 2, *asked,
         '--out', 'two'], tmp_path)
    assert 'destroy_process_group() was not called' not in output
    names = ['curve.json', 'curve.md', 'curve.png']
    assert all((tmp_path / 'two' / name).is_file() for name in names)
    one, two = (json.loads((tmp_path / n / 'curve.json').read_text())
                for n in ('one', 'two'))
    assert_same(one, two)
    # the clean host, and all the others for each seed: the envelope draws
    assert len(one) == 1 + 2 * 2 * 3
    assert len({row['metrics'].get('kl') for row in one}) == len(one)
    # each row once, although there are two processes
    assert lines_of(output) == [row_line(row) for row in two]
    assert alone == [row_line(row) for row in one]


@pytest.mark.slow
def test_rate_curve(classifier, tmp_path, run_tool):
    """The scales of the steps are the same, to the last bit."""
    _, *files = classifier
    asked = ['--policies', 'featjnd', 'permuted-steps', 'one-step',
             'clip-uniform', '--mean-bits', '0.5', '40', '--noise-budgets',
             '0.3', '--seeds', '1', '--calibration-images', '5',
             '--calibration-split', 'test']
    run_tool('analysis_tools/rate_curve.py', *files, *asked, '--out',
             tmp_path / 'one')
    output = in_two_processes(
        ['bash', ROOT / 'tools/dist_curve.sh', 'rate_curve', *files, 2, *asked,
         '--out', 'two'], tmp_path)
    one, two = (json.loads((tmp_path / n / 'rates.json').read_text())
                for n in ('one', 'two'))
    assert_same(one, two)
    assert [row.get('scale') for row in one] == [
        row.get('scale') for row in two]
    assert {row.get('mean_bits') for row in one} == {None, 0.5}
    assert len(one) >= 1 + 3 + 4  # a rate may be out of reach
    assert output.count('Scales of the steps, on 5 images') == 1
    assert lines_of(output) == [row_line(row) for row in two]


@pytest.mark.slow
def test_jnd_curve_of_a_detector(detector, tmp_path):
    cfg, *files = detector
    one = measure_curve(
        cfg, str(files[1]), ['gaussian', 'gradient-sensitivity'], [0.05, 0.2])
    in_two_processes(
        ['bash', ROOT / 'tools/dist_curve.sh', 'jnd_curve', *files, 2,
         '--distortions', 'gaussian', 'gradient-sensitivity', '--nrmse',
         '0.05', '0.2', '--seeds', '1', '--out', 'two'], tmp_path)
    two = json.loads((tmp_path / 'two/curve.json').read_text())
    assert_same(json.loads(json.dumps(one)), two)
    precision = [row['metrics']['coco/bbox_mAP'] for row in one]
    assert precision[0] > max(precision[1:]) > 0  # something is measured


def test_one_process_with_a_launcher(classifier, tmp_path, run_tool,
                                     monkeypatch, capfd):
    _, *files = classifier
    for name, value in dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0,
                            MASTER_ADDR='127.0.0.1', OMP_NUM_THREADS=1,
                            MASTER_PORT=free_port()).items():
        monkeypatch.setenv(name, str(value))
    run = [
        'analysis_tools/jnd_curve.py', *files, '--nrmse', 1, '--seeds', 1,
        '--distortions', 'gaussian', '--launcher', 'pytorch', '--out'
    ]
    run_tool(*run, tmp_path / 'out')
    assert not torch.distributed.is_initialized()
    rows = json.loads((tmp_path / 'out/curve.json').read_text())
    printed = capfd.readouterr().out
    assert lines_of(printed) == [row_line(row) for row in rows]
    monkeypatch.delenv('RANK')
    with pytest.raises(SystemExit, match='finds no RANK'):
        run_tool(*run, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


# ------------------------------------------------------------------- the rows
def measure(config, checkpoint, launcher='none'):
    """Rows with everything in them, in several passes."""
    cfg = Config.fromfile(config)
    cfg.launcher = launcher
    cfg.log_level = 'ERROR'
    with distributed(cfg):
        operations = [Perturbation('gaussian', 0.05),
                      Perturbation('gradient-sensitivity', 0.1),
                      Quantization('one-step', noise_budget=0.1)]
        rows = OperationTest(cfg, str(checkpoint)).measure(
            [(0, o) for o in operations], settings_per_pass=2, nats=True,
            draws=3)
        return rows, get_rank()


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['classifier', 'detector'])
def test_every_rank_has_all_rows(kind, request, tmp_path, monkeypatch):
    _, *files = request.getfixturevalue(kind)
    monkeypatch.chdir(tmp_path)
    in_two_processes(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone',
         '--nproc_per_node=2', __file__, *files], tmp_path)
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text())
                     for rank in range(2))
    assert_same(first, second)
    rows, _ = measure(*files)
    assert_same(json.loads(json.dumps(rows)), first)
    assert len(rows) == 4
    for row in rows[1:]:
        assert row['metrics']['kl'] > 0
        assert len(row['draws']) == 2  # of the task metric, too
        assert len(row['draws']['kl']) == 1 + 3


def test_a_line_says_what_was_measured():
    metrics = {'coco/bbox_mAP': 0.31149, 'coco/bbox_mAP_50': 0.5,
               'coco/segm_mAP': float('nan'), 'kl': 0.25}
    values = 'coco/bbox_mAP 0.3115, coco/segm_mAP nan, kl 0.25'
    assert row_line(dict(metrics=metrics)) == f'clean: {values}'
    row = dict(distortion='clean', nrmse=0.0, seed=0, metrics={})
    assert row_line(row) == 'clean: no metric'
    row = dict(distortion='gaussian', definition='rms', valid=False, nrmse=0.5,
               seed=0, metrics=metrics)
    assert row_line(row) == f'gaussian NRMSE 0.5 seed 0: {values}'
    row.update(definition='channel', valid=True)
    assert row_line(row) == \
        f'gaussian NRMSE 0.5 channel valid seed 0: {values}'
    row = dict(policy='one-step', noise_budget=None, mean_bits=0.25, seed=1,
               metrics={'mIoU': 50.0})
    assert row_line(row) == 'one-step mean bits 0.25 seed 1: mIoU 50'
    row.update(noise_budget=0.3, mean_bits=None)
    assert row_line(row) == 'one-step NRMSE 0.3 seed 1: mIoU 50'


if __name__ == '__main__':
    found, rank = measure(*sys.argv[1:], launcher='pytorch')
    Path(f'{rank}.json').write_text(json.dumps(found))
