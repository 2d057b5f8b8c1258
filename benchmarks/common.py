"""What the benchmark scripts share: training once, and publishing."""
import json
import platform
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmfeatjnd
from mmfeatjnd.apis.cli import enable_amp
from mmfeatjnd.apis.console import atomic_path
from mmfeatjnd.compat import installed_versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'


def train_once(config: Path,
               work_dir: Path,
               amp: bool = False,
               **options) -> str:
    """Train a config unless its work dir holds a finished run.

    Args:
        config (Path): The config.
        work_dir (Path): Where the run lives.
        amp (bool): In mixed precision, as ``--amp``. Defaults to False.
        **options: Merged into the config, dots as double underscores.

    Returns:
        str: The last checkpoint.
    """
    last, done = work_dir / 'last_checkpoint', work_dir / 'done'
    if not done.is_file():
        cfg = Config.fromfile(config)
        cfg.work_dir = str(work_dir)
        cfg.resume = last.is_file()
        cfg.merge_from_dict(
            {k.replace('__', '.'): v
             for k, v in options.items()})
        if amp:
            enable_amp(cfg)
        if cfg.resume:
            cfg.load_from = None
        Runner.from_cfg(cfg).train()
        done.touch()
    return last.read_text().strip()


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
