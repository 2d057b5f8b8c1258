"""What a config says, and which host library it is about."""
import inspect
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject

from mmfeatjnd.compat import HOST_LIBRARIES


class ConfigError(ValueError):
    """A config that lacks what is needed, or has something else there."""


def read_config(config: Union[str, Path, dict]) -> Config:
    """A config that is given as a file or as its content.

    Args:
        config (str | Path | dict): Path of a config file, a :class:`Config`,
            or a dict of its fields.

    Returns:
        Config: The config; of a dict a copy of the first level.

    Example:
        >>> read_config(dict(model=dict(type='mmdet.MaskRCNN'))).model.type
        'mmdet.MaskRCNN'
    """
    if isinstance(config, (str, Path)):
        return Config.fromfile(config)
    return Config(dict(config))


def type_name(cfg: dict) -> Optional[str]:
    """Name of the class that a part of a config names.

    Args:
        cfg (dict): With ``type``: a string with or without scope, a class, or
            what a new-style config imports.

    Returns:
        str, optional: The name without its scope. None without a type.
    """
    kind = _imported(cfg.get('type'))
    if kind is None or isinstance(kind, str):
        return kind and kind.rsplit('.', 1)[-1]
    return kind.__name__


def config_library(cfg: Config) -> str:
    """Name of the library that a config's model comes from.

    The model says it, because the ``default_scope`` need not: new-style
    configs have none, and one library's data may train another's model.

    Args:
        cfg (Config): A config with ``model``.

    Returns:
        str: 'mmdet', 'mmpretrain' or 'mmseg'. Where the model does not tell:
        the default scope, 'mmengine' without one.
    """
    model = cfg.get('model') or {}
    while 'module' in model:  # wrapped for augmentation at test time
        model = model['module']
    # the builder by its registered name, or as a new-style config imports it
    builders = 'FeatJND', 'build_featjnd'
    key = 'host' if type_name(model) in builders else 'type'
    kind = _imported(model.get(key))
    names = [kind] if isinstance(kind, str) else []
    if inspect.isclass(kind):
        names = [cls.__module__ for cls in kind.__mro__]
    for name in names:
        if name.partition('.')[0] in HOST_LIBRARIES:
            return name.partition('.')[0]
    return cfg.get('default_scope') or 'mmengine'


def _imported(kind: Any) -> Any:
    """What a new-style config imports; everything else as it is."""
    if isinstance(kind, (LazyAttr, LazyObject)):
        return kind.build()
    return kind
