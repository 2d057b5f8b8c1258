"""What the benchmark scripts share: training once, and publishing."""
import json
import platform
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config

import mmfeatjnd
from mmfeatjnd.apis import train_once
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
