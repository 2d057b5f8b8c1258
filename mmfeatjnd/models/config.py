"""Configs, given as files or as what is in them."""
from pathlib import Path
from typing import Union

from mmengine.config import Config


def read_config(config: Union[str, Path, dict]) -> Config:
    """A config.

    Args:
        config (str | Path | dict): A file, or its content.

    Returns:
        Config: Its ``filename`` is None if it was no file.
    """
    if isinstance(config, (str, Path)):
        return Config.fromfile(config)
    return Config(dict(config))
