"""See FeatJND work on made-up images, in minutes and without a download.

Makes a set of textured shapes, trains a small Mask R-CNN on it, trains the
estimator of its feature JND, and tests the host clean, with FeatJND and with
Gaussian noise of equal strength. A second run skips what is done.
"""
import argparse
import json
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmfeatjnd.apis import measure_curve, train_once, trained_checkpoint
from mmfeatjnd.compat import (
    check_environment,
    register_trusted_checkpoint_loader,
)
from mmfeatjnd.datasets import generate_shapes
from mmfeatjnd.evaluation import cost_ratios, plot, to_markdown
from mmfeatjnd.models import Perturbation, find_neck
from mmfeatjnd.utils import atomic_path
from mmfeatjnd.visualization import ToleranceRecorder, draw_tolerance

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'demo'
STRENGTHS = (0.5, 1.0, 1.5)
METRIC = 'coco/segm_mAP'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/demo'),
        help='folder for data, checkpoints and results')
    return parser.parse_args()


def load_config(name: str, data: Path, work_dir: Path) -> Config:
    cfg = Config.fromfile(CONFIGS / name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader):
            cfg[loader].dataset.data_root = f'{data}/'
    for evaluator in ('val_evaluator', 'test_evaluator'):
        if cfg.get(evaluator):
            cfg[evaluator].ann_file = str(data / 'annotations' /
                                          'instances_val.json')
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'WARNING'  # the log file and the bar say the rest
    cfg.custom_hooks = [dict(type='mmfeatjnd.ProgressHook')]
    return cfg


def train(cfg: Config, title: str) -> str:
    """Train, or resume, or find that it is done; return the checkpoint."""
    skip = trained_checkpoint(cfg.work_dir) is not None
    print(f'{title}: ' + ('done before, skipped' if skip else ''), flush=True)
    return train_once(cfg)


def test(cfg: Config, checkpoint: str, out: Path) -> list:
    """The rows of the tolerance curve, measured once."""
    file = out / 'curve.json'
    if file.is_file():
        print('Test: done before, skipped')
        return json.loads(file.read_text())
    print('Test (clean, FeatJND, Gaussian at equal strength):', flush=True)
    cfg.custom_hooks = []
    rows = measure_curve(cfg, checkpoint, ('featjnd', 'gaussian'), STRENGTHS)
    print()
    plot(rows, out / 'curve.png', METRIC)
    with atomic_path(str(file)) as path:
        Path(path).write_text(json.dumps(rows, indent=1))
    return rows


@torch.no_grad()
def draw_overlays(cfg: Config, checkpoint: str, out: Path,
                  num_images: int = 4) -> Path:
    """Predictions clean, with FeatJND and with Gaussian noise, and where the
    estimator tolerates change."""
    from mmdet.apis import inference_detector, init_detector
    from mmdet.registry import VISUALIZERS
    model = init_detector(cfg, checkpoint, device='cpu')
    neck = find_neck(model)
    visualizer = VISUALIZERS.build(cfg.visualizer)
    visualizer.dataset_meta = model.dataset_meta
    folder = Path(cfg.test_dataloader.dataset.data_root) / 'val'
    pictures, maps = [], []
    for path in sorted(folder.iterdir())[:num_images]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, None, fx=2, fy=2)
        tiles = []
        for distortion in (None, 'featjnd', 'gaussian'):
            operation = Perturbation(distortion, 1.0) if distortion else None
            with neck.run(operation) if operation else nullcontext():
                result = inference_detector(model, str(path)).cpu()
            pred = result.pred_instances
            pred.bboxes = pred.bboxes * 2
            pred.masks = np.stack([
                cv2.resize(m, image.shape[1::-1])
                for m in pred.masks.numpy().astype(np.uint8)
            ]).astype(bool) if len(pred) else np.zeros(
                (0, *image.shape[:2]), bool)
            visualizer.add_datasample(
                path.stem, image, result, draw_gt=False, pred_score_thr=0.5)
            tiles.append(visualizer.get_image())
        recorder = ToleranceRecorder()
        with neck.run(recorder):
            inference_detector(model, str(path))
        pictures.append([*tiles, image])
        maps.append(recorder.heatmap(image.shape[:2])[0].numpy())
    file = out / 'overlays.png'
    titles = ('clean', 'FeatJND, NRMSE 1', 'Gaussian, NRMSE 1', 'tolerance')
    draw_tolerance(pictures, maps, titles, file)
    return file


def main():
    args = parse_args()
    check_environment()
    register_trusted_checkpoint_loader()
    out = args.work_dir
    out.mkdir(parents=True, exist_ok=True)
    data = out / 'shapes'
    generate_shapes(data)
    host = train(
        load_config('mask-rcnn_tiny_shapes.py', data, out / 'host'),
        'Host (Mask R-CNN)')
    cfg = load_config('featjnd_tiny_shapes.py', data, out / 'featjnd')
    cfg.load_from = host
    checkpoint = train(cfg, 'FeatJND estimator')
    cfg = load_config('featjnd_tiny_shapes.py', data, out / 'test')
    rows = test(cfg, checkpoint, out)
    overlays = draw_overlays(cfg, checkpoint, out)
    print(f'\n{to_markdown(rows, METRIC)}')
    for strength, ratio in cost_ratios(rows, metric=METRIC).items():
        print(f'NRMSE {strength:g}: FeatJND costs {ratio:.2f} of what '
              'Gaussian noise costs')
    print(f'Plot:     {out / "curve.png"}\nOverlays: {overlays}')


if __name__ == '__main__':
    main()
