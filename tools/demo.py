"""See FeatJND work on made-up images, in minutes and without a download.

Makes a set of textured shapes, trains a small Mask R-CNN on it, trains the
estimator of its feature JND, and tests the host clean and under noise of equal
strength: shared out by the learned map, by maps that know less, and white. A
second run skips what is trained.
"""
import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Dict, List, Sequence

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from mmfeatjnd.apis import measure_curve, train_once, trained_checkpoint
from mmfeatjnd.compat import check_environment
from mmfeatjnd.datasets import generate_shapes
from mmfeatjnd.evaluation import curve
from mmfeatjnd.evaluation.figure import saved_figure
from mmfeatjnd.models import JNDMapRecorder, Perturbation, find_neck
from mmfeatjnd.utils import atomic_path, load_safely
from mmfeatjnd.visualization import draw_instances, show_heat_maps

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'demo'
NRMSE = (1.0, 2.0, 4.0)  # the last is that of the pictures
METRIC = 'coco/segm_mAP'
DISTORTIONS = {
    'featjnd': 'learned map',
    'static': 'mean map of the training',
    'permuted': 'learned map, permuted',
    'gaussian': 'white noise'
}
TITLES = {
    None: 'clean',
    'featjnd': f'noise {NRMSE[-1]:g}, by the map',
    'gaussian': f'noise {NRMSE[-1]:g}, white'
}
SCORE = 0.5  # from here on an instance counts as found


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


def test(cfg: Config, checkpoint: str) -> List[dict]:
    """The rows of the JND curve."""
    print('Test (clean, and noise of equal strength in different places):',
          flush=True)
    cfg.custom_hooks = []
    rows = measure_curve(
        cfg, checkpoint, list(DISTORTIONS), NRMSE, definition='channel')
    print()
    return rows


def surest(sample) -> InstanceData:
    """What counts as found in an image."""
    return sample.pred_instances[sample.pred_instances.scores >= SCORE]


def is_right(sample) -> bool:
    """Whether the host finds every object of an image and nothing else: the
    right class, and a mask of an IoU of at least 0.7."""
    found = surest(sample)
    truth = sample.gt_instances
    if len(found) != len(truth):
        return False
    masks = truth.masks.to_ndarray().astype(bool)
    for label, mask in zip(truth.labels, masks):
        ious = [(mask & m).sum() / (mask | m).sum()
                for m in found.masks[found.labels == int(label)].numpy()]
        if max(ious, default=0) < 0.7:
            return False
    return True


@torch.no_grad()
def predict(model: nn.Module, dataset,
            num_images: int) -> List[Dict[str, object]]:
    """Predictions clean and distorted, by the name of the distortion, and
    the learned map ('map'), of images that the clean host gets right: of each
    class the one of which it is surest."""
    neck = find_neck(model)

    def under(name, item):
        operation = Perturbation(
            name, NRMSE[-1], 'channel') if name else None
        with neck.run(operation, [item['data_samples']]) if name else \
                nullcontext():
            return model.test_step(pseudo_collate([item]))[0]

    clean = [(under(None, item), item) for item in dataset]
    right = [pair for pair in clean if is_right(pair[0])]
    right.sort(key=lambda pair: float(surest(pair[0]).scores.min()))
    best = {tuple(surest(sample).labels.unique().tolist()): item
            for sample, item in right}  # a surer one takes the place
    chosen = list(best.values())[::-1][:num_images]
    return [
        dict({name: under(name, item) for name in TITLES},
             map=jnd_map(model, item)) for item in chosen
    ]


def jnd_map(model: nn.Module, item: dict) -> torch.Tensor:
    """How much noise each place of an image tolerates, (H, W)."""
    recorder = JNDMapRecorder()
    with find_neck(model).run(recorder, [item['data_samples']]):
        model.test_step(pseudo_collate([item]))
    return recorder.heat_map(item['inputs'].shape[-2:])[0]


def draw(predictions: Sequence[Dict[str, object]], rows: List[dict],
         meta: dict, path: Path) -> None:
    """Pictures of the predictions, and the curve beside them.

    Args:
        predictions (Sequence[dict]): Those of :func:`predict`, a row each.
        rows (list[dict]): Those of :func:`test`.
        meta (dict): Classes and palette of the data.
        path (Path): Picture to write.
    """
    with saved_figure(path, 12.5, 5.0, dpi=120) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
        if predictions:
            draw_predictions(left, predictions, meta)
        axis = right.subplots()
        curve.draw(rows, axis, METRIC, DISTORTIONS)
        axis.set_ylim(bottom=0)
        axis.axvline(NRMSE[-1], color='0.6', ls=':', label='the pictures')
        axis.set_xlabel("RMS of the noise / channels' standard deviation")
        axis.set_ylabel('mask mAP')
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)


def draw_predictions(figure, predictions: Sequence[dict],
                     meta: dict) -> None:
    """A row for each image: clean, its map, and under noise."""
    columns = [None, 'map', *list(TITLES)[1:]]
    axes = figure.subplots(len(predictions), len(columns), squeeze=False)
    for line, found in zip(axes, predictions):
        image = np.ascontiguousarray(
            cv2.imread(found[None].img_path)[..., ::-1])
        for axis, column in zip(line, columns):
            if column != 'map':
                draw_instances(axis, image, found[column].pred_instances,
                               meta['classes'], meta['palette'], SCORE)
    shown = show_heat_maps(
        axes[:, 1],
        [cv2.imread(found[None].img_path)[..., ::-1] for found in predictions],
        [found['map'] for found in predictions])
    figure.colorbar(
        shown, ax=axes[:, 1], location='bottom', shrink=0.9,
        label='tolerated noise')
    for axis, column in zip(axes[0], columns):
        axis.set_title(TITLES.get(column, 'learned map'), fontsize=9)


def main():
    args = parse_args()
    check_environment()
    load_safely()
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
    rows = test(cfg, checkpoint)
    with atomic_path(str(out / 'curve.json')) as path:
        Path(path).write_text(json.dumps(rows, indent=1))

    from mmdet.apis import init_detector
    from mmdet.registry import DATASETS
    model = init_detector(cfg, checkpoint, device='cpu')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    predictions = predict(model, dataset, num_images=3)
    with atomic_path(str(out / 'demo.png')) as path:
        draw(predictions, rows, dataset.metainfo, Path(path))
    print(f'\n{curve.to_markdown(rows, METRIC)}')
    for nrmse, ratio in curve.cost_ratios(rows, metric=METRIC).items():
        print(f'RMS {nrmse:g}: noise by the learned map costs {ratio:.2f} of '
              'what white noise costs')
    print(f'Picture: {out / "demo.png"}\nCurve:   {out / "curve.json"}')


if __name__ == '__main__':
    main()
