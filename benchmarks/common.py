"""What the benchmark scripts share: training once, and publishing."""
import json
import platform
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import load_checkpoint

import mmfeatjnd
from mmfeatjnd.apis import build_model, save_estimator, train_once
from mmfeatjnd.apis.cli import enable_amp
from mmfeatjnd.apis.console import atomic_path
from mmfeatjnd.compat import installed_versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'


def train_config(config: Path,
                 work_dir: Path,
                 amp: bool = False,
                 options: Optional[dict] = None) -> str:
    """Train a config unless its work dir holds a finished run.

    Args:
        config (Path): The config.
        work_dir (Path): Where the run lives.
        amp (bool): In mixed precision, as ``--amp``. Defaults to False.
        options (dict, optional): As ``--cfg-options``. Defaults to None.

    Returns:
        str: The last checkpoint.
    """
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options or {})
    if amp:
        enable_amp(cfg)
    return train_once(cfg)


def train_estimator(config: Path, host: str, work_dir: Path, amp: bool,
                    options: dict) -> str:
    """Train one estimator and write it to a file of its own.

    Args:
        config (Path): The config.
        host (str): Checkpoint of the host.
        work_dir (Path): Where the run lives.
        amp (bool): In mixed precision.
        options (dict): As ``--cfg-options``.

    Returns:
        str: The estimator file.
    """
    file = work_dir / 'estimator.pth'
    # the curve tests it
    idle = dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator'))
    checkpoint = train_config(config, work_dir, amp,
                              dict(options, load_from=host, **idle))
    if not file.is_file():
        model = build_model(Config.fromfile(work_dir / config.name))
        load_checkpoint(model, checkpoint, map_location='cpu')
        save_estimator(model, file)
    return str(file)


def keep_every(cfg: Config, step: int, work_dir: Path) -> None:
    """Test on every ``step``-th image; the classes stay balanced."""
    dataset = cfg.test_dataloader.dataset
    if 'ann_file' not in cfg.test_evaluator:
        init_default_scope(cfg.default_scope)
        size = len(DATASETS.build(dataset))
        dataset.indices = list(range(0, size, step))
        return
    # COCO's metric counts every image of its annotation file
    coco = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
    coco['images'] = coco['images'][::step]
    kept = {image['id'] for image in coco['images']}
    coco['annotations'] = [
        a for a in coco['annotations'] if a['image_id'] in kept
    ]
    file = work_dir.resolve() / f'every{step}.json'
    file.write_text(json.dumps(coco))
    dataset.ann_file = cfg.test_evaluator.ann_file = str(file)


def publish(name: str, result: dict) -> Path:
    """Write a result with the versions and the device it comes from."""
    result = dict(result)
    result['versions'] = dict(
        installed_versions(),
        mmfeatjnd=mmfeatjnd.__version__,
        python=platform.python_version())
    result['device'] = 'cuda' if torch.cuda.is_available() else 'cpu'
    result['rows'] = result.pop('rows')  # last: the header stays in sight
    file = RESULTS / f'{name}.json'
    with atomic_path(str(file)) as path:
        Path(path).write_text(json.dumps(result, indent=1) + '\n')
    print(f'Saved to {file.relative_to(ROOT)}')
    return file
