"""Train an estimator, test with it and draw a curve: once per library.

The shipped configs and tools, on data and hosts made small.
"""
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.utils import get_installed_path
from PIL import Image

import mmfeatjnd  # noqa: F401
from mmfeatjnd.apis import build_model, measure_curve, save_estimator
from mmfeatjnd.datasets import generate_shapes

ROOT = Path(__file__).resolve().parents[2]


def run(tool, *args, cwd):
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    env.pop('LOCAL_RANK', None)
    result = subprocess.run([sys.executable, ROOT / 'tools' / tool, *args],
                            cwd=cwd,
                            env=env,
                            capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def detection(root):
    generate_shapes(root / 'shapes', 4, 2, 64, progress=False)
    cfg = Config.fromfile(ROOT / 'configs/demo/featjnd_tiny_shapes.py')
    for loader in ('train_dataloader', 'test_dataloader'):
        cfg[loader].batch_size = 2
        cfg[loader].dataset.data_root = f'{root}/shapes/'
    cfg.test_evaluator.ann_file = \
        f'{root}/shapes/annotations/instances_val.json'
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.neck.in_channels = [8, 16, 32, 64]
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.model.test_cfg.rcnn.max_per_img = 5
    return cfg, 'coco/bbox_mAP'


def classification(root):
    rng = np.random.default_rng(0)
    for split in ('train', 'test'):
        for name in ('a', 'b'):
            folder = root / 'images' / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(
                    rng.integers(0, 256, (32, 32, 3),
                                 np.uint8)).save(folder / f'{i}.png')
    cfg = Config.fromfile(ROOT / 'configs/featjnd/resnet18_cifar10.py')
    for loader, split in (('train_dataloader', 'train'), ('test_dataloader',
                                                          'test')):
        cfg[loader].update(
            batch_size=4, num_workers=0, persistent_workers=False)
        cfg[loader].dataset.data_root = f'{root}/images/{split}'
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.model.backbone.update(stem_channels=8, base_channels=8)
    cfg.model.neck.in_channels = 16
    cfg.model.head.update(in_channels=64, num_classes=2)
    cfg.data_preprocessor.num_classes = 2
    return cfg, 'accuracy/top1'


def segmentation(root):
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
            (root / 'ade' / kind / split).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(
                root / f'ade/images/{split}/{i}.jpg')
            Image.fromarray(rng.integers(0, 151, (64, 64), np.uint8)).save(
                root / f'ade/annotations/{split}/{i}.png')
    cfg = Config.fromfile(ROOT / 'configs/featjnd/segformer_mit-b0_ade20k.py')
    for loader in ('train_dataloader', 'test_dataloader'):
        cfg[loader].update(
            batch_size=2, num_workers=0, persistent_workers=False)
        cfg[loader].dataset.data_root = f'{root}/ade'
    cfg.test_dataloader.batch_size = 1
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='PackSegInputs')
    ]
    cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='PackSegInputs')
    ]
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.data_preprocessor.size = (64, 64)
    cfg.model.backbone.init_cfg = None
    cfg.model.decode_head.update(norm_cfg=dict(type='BN'), channels=16)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    return cfg, 'mIoU'


def infer(make, config, checkpoint, image):
    """One prediction through the host's own inference API."""
    if make is detection:
        from mmdet.apis import DetInferencer
        inferencer = DetInferencer(str(config), str(checkpoint), device='cpu')
        result = inferencer(image, no_save_vis=True)['predictions'][0]
        return len(result['bboxes']) == len(result['masks'])
    if make is classification:
        from mmpretrain.apis import ImageClassificationInferencer
        inferencer = ImageClassificationInferencer(
            str(config), pretrained=str(checkpoint), device='cpu')
        return inferencer(image)[0]['pred_label'] in (0, 1)
    from mmseg.apis import MMSegInferencer
    inferencer = MMSegInferencer(str(config), str(checkpoint), device='cpu')
    return inferencer(image)['predictions'].shape == image.shape[:2]


def predictions(path):
    """What ``tools/test.py --out`` wrote, by image: scores of a classifier or
    detector, classes of the pixels of a segmentor."""
    if path.is_dir():  # of MMSegmentation, label maps
        return {f.name: np.asarray(Image.open(f)) for f in path.iterdir()}
    return {
        row['img_path']: np.asarray(row['pred_score'] if 'pred_score' in row
                                    else row['pred_instances']['scores'])
        for row in pickle.loads(path.read_bytes())
    }


def change(a, b):
    """Of scores the largest, of classes the share that differs."""
    assert a.shape == b.shape
    return (a != b).mean() if a.ndim == 2 else np.abs(a - b).max()


@pytest.mark.slow
@pytest.mark.parametrize('make', [detection, classification, segmentation])
def test_train_test_and_curve(make, tmp_path, run_tool):
    cfg, metric = make(tmp_path)
    cfg.load_from = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=2)
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = dict(seed=0)
    config = tmp_path / 'config.py'
    cfg.dump(config)

    out = run('train.py', config, '--work-dir', tmp_path / 'w', cwd=tmp_path)
    assert 'loss_jnd_regression' in out and 'jnd_sensitivity' in out
    checkpoint = tmp_path / 'w' / 'iter_2.pth'
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    assert any(k.startswith('neck.estimators.0.') for k in state)

    def test(name, *options):
        """Predictions and metrics of tools/test.py."""
        run_tool('test.py', config, checkpoint, '--work-dir', tmp_path / name,
                 '--out', tmp_path / f'{name}.pkl', *options)
        log, = (tmp_path / name).glob('*/*.json')
        return (predictions(tmp_path / f'{name}.pkl'),
                json.loads(log.read_text()))

    hook = "dict(type='mmfeatjnd.PerturbationHook'," \
        "distortion='gaussian',nrmse={},seed=1)"
    clean, _ = test('clean')
    noisy, tested = test('noisy', '--hook', hook.format(0.75))
    faint, _ = test('faint', '--hook', hook.format(1e-6))
    assert tested['jnd/nrmse'] == pytest.approx(0.75, rel=1e-4)
    # it reaches every prediction, and does as much as it is strong
    assert clean.keys() == noisy.keys() == faint.keys() and len(clean) >= 2
    for name, x in clean.items():
        strong, weak = (change(x, y[name]) for y in (noisy, faint))
        assert strong > 1e-4 and weak < strong / 1000

    run('analysis_tools/jnd_curve.py', config, checkpoint, '--distortions',
        'featjnd', 'gaussian', 'gradient-sensitivity', '--nrmse', '0.25',
        '0.75', '--seeds', '2', '--out', tmp_path / 'curve', cwd=tmp_path)
    names = {f.name for f in (tmp_path / 'curve').iterdir() if f.is_file()}
    assert names >= {'curve.json', 'curve.md', 'curve.png'}
    rows = json.loads((tmp_path / 'curve/curve.json').read_text())
    # clean, and noise for both seeds
    assert len(rows) == 1 + 3 * 2 * 2
    for row in rows[1:]:
        assert row['nrmse_measured'] == pytest.approx(row['nrmse'], rel=1e-3)
        assert 0 < row['participation_ratio'] <= 1
    # two ways to the same number: one pass for all, and a test with the hook
    same, = (r for r in rows if r['distortion'] == 'gaussian'
             and r['nrmse'] == 0.75 and r['seed'] == 1)
    assert same['metrics'][metric] == pytest.approx(tested[metric], abs=1e-6)
    # the other hosts are right, or wrong, about all images either way
    if make is segmentation:
        assert same['metrics'] != rows[0]['metrics']

    # the file that trained it serves the host's own API
    image = np.zeros((64, 64, 3), np.uint8)
    assert infer(make, config, checkpoint, image)


@pytest.mark.slow
def test_every_seed_of_a_curve_has_its_own_estimator(tmp_path):
    cfg, metric = classification(tmp_path)
    cfg.work_dir = str(tmp_path)
    cfg.test_evaluator = dict(type='Accuracy', topk=(1, ), thrs=(0.5, 0.9))
    torch.manual_seed(0)
    model = build_model(cfg.copy()).eval()
    host = tmp_path / 'host.pth'
    torch.save(dict(state_dict=model.state_dict()), host)
    files = []
    for i in range(2):
        estimator, = model.neck.estimators
        estimator.channels.updates.fill_(1)
        estimator.initial.fill_(1)  # the parameters are others since
        torch.nn.init.normal_(estimator.expand.weight, std=1.0 + 20 * i)
        estimator.expand.bias.data.fill_(i)
        files.append(str(tmp_path / f'{i}.pth'))
        save_estimator(model, files[-1])

    def ratios(seeds, files):
        rows = measure_curve(cfg, str(host), ['featjnd'], [0.5, 1.0], seeds,
                             files)
        return [r['participation_ratio'] for r in rows[1:]]

    both = ratios((0, 1), files)
    first, second = ratios((0, ), files[:1]), ratios((1, ), files[1:])
    assert both == first + second
    assert first != second


def test_the_hosts_own_tool_runs_a_hook_of_a_config(tmp_path):
    cfg, _ = detection(tmp_path)
    cfg.load_from = None
    cfg.custom_hooks = [dict(type='mmfeatjnd.PerturbationHook',
                             distortion='gaussian', nrmse=0.5)]
    torch.save(dict(state_dict=build_model(cfg).state_dict()),
               tmp_path / 'model.pth')
    cfg.dump(tmp_path / 'config.py')
    tool = Path(get_installed_path('mmdet'), '.mim/tools/test.py')
    log = run(tool, 'config.py', 'model.pth', '--work-dir', 'work',
              cwd=tmp_path)
    assert 'coco/bbox_mAP' in log and 'jnd/nrmse: 0.5000' in log
