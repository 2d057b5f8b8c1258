"""Build, and train once, what a config describes."""
from pathlib import Path
from typing import Optional, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmfeatjnd.models.hosts import build_host
from .cli import resolve_resume
from .launch import build_runner


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, as a Runner would, without a Runner.

    Args:
        cfg (Config): A config of any host library.

    Returns:
        nn.Module: The model, on the CPU, its weights not yet loaded.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return build_host(cfg)


def trained_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The last checkpoint of a run of :func:`train_once` that finished."""
    if not (Path(work_dir) / 'done').is_file():
        return None
    return (Path(work_dir) / 'last_checkpoint').read_text().strip()


def train_once(cfg: Config) -> str:
    """Train a config unless its ``work_dir`` holds a finished run.

    An interrupted run is resumed.

    Args:
        cfg (Config): The config, with ``work_dir``.

    Returns:
        str: The last checkpoint.
    """
    if trained_checkpoint(cfg.work_dir) is None:
        resolve_resume(cfg, 'auto')
        build_runner(cfg).train()
        (Path(cfg.work_dir) / 'done').touch()
    return trained_checkpoint(cfg.work_dir)
