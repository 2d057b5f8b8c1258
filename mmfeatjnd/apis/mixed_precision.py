"""Training in mixed precision on every device."""
import logging

from mmengine.config import Config
from mmengine.device import get_device

from mmfeatjnd.utils import ConfigError, config_library, log, type_name


def warn_of_amp(cfg: Config) -> None:
    """Say what mixed precision cannot do on the CPU.

    Args:
        cfg (Config): The config.

    Example:
        >>> warn_of_amp(cfg)  # of a classifier: nothing
    """
    if get_device() == 'cpu' and config_library(cfg) == 'mmdet':
        log('--amp on the CPU: operators of mmcv, such as RoIAlign, take '
            'float32 only, and a detector that uses them stops',
            logging.WARNING)


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision, on an accelerator or on the CPU.

    MMEngine's wrapper refuses the CPU; there the config gets
    :class:`mmfeatjnd.engine.optim_wrappers.CPUAmpOptimWrapper` instead.

    Args:
        cfg (Config): The config, edited in place.

    Raises:
        ConfigError: If the optimizer wrapper is of another type than
            ``OptimWrapper`` or has no mixed-precision form on the device.

    Example:
        >>> mixed = Config(dict(model=dict(), optim_wrapper=dict()))
        >>> enable_amp(mixed)
        >>> mixed.optim_wrapper.type.endswith('AmpOptimWrapper')
        True
    """
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper) or 'OptimWrapper'
    if kind in ('AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        log(f'--amp: the config already uses {kind}', logging.WARNING)
    elif kind != 'OptimWrapper':
        raise ConfigError(
            '--amp replaces an optim_wrapper of type OptimWrapper, but this '
            f"config's is of type {kind}: set its precision in the config")
    device = get_device()
    if device == 'cpu':
        warn_of_amp(cfg)
        wrapper.type = 'mmfeatjnd.CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    elif device in ('cuda', 'npu', 'mlu', 'musa'):
        if kind == 'OptimWrapper':
            wrapper.type = 'AmpOptimWrapper'
            wrapper.setdefault('loss_scale', 'dynamic')
    else:
        raise ConfigError(f'--amp is not supported on the device {device!r}')
