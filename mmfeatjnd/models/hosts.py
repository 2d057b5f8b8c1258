"""Building, and extending, what a host library registers."""
import functools
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmfeatjnd.registry import MODELS


def build_host(cfg: Config) -> nn.Module:
    """Build the model of a config, as a Runner would, in its own scope.

    Args:
        cfg (Config): A config of any host library.

    Returns:
        nn.Module: The model, on the CPU, its weights not yet loaded.
    """
    model = cfg.model.copy()
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    scope = cfg.get('default_scope', 'mmengine')
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(model)


def check_checkpoint(checkpoint: str, who: str, remedy: str) -> None:
    """Raise a FileNotFoundError if a checkpoint, unless it is a URL, is not
    there.

    Args:
        checkpoint (str): Path or URL.
        who (str): Needs it.
        remedy (str): What to do, a sentence.
    """
    if '://' not in str(checkpoint) and not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f'{who}: there is no checkpoint {checkpoint!r}. {remedy}')


def host_class(host: str) -> Optional[type]:
    """What is registered as a name with its scope, e.g. 'mmdet.MaskRCNN';
    None if nothing is."""
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(host)


@contextmanager
def host_scope(host: str) -> Iterator[None]:
    """The scope of a host's name, where no Runner has set one."""
    scope = None
    if DefaultScope.get_current_instance() is None:
        scope = host.partition('.')[0]
    with DefaultScope.overwrite_default_scope(scope):
        yield


@functools.lru_cache(maxsize=None)
def extended_class(mixin: type, host: type) -> type:
    """A host's class with a mixin, under the host's name, since tools and
    logs show it."""
    return type(host.__name__, (mixin, host), {
        '__module__': host.__module__,
        '__doc__': host.__doc__
    })
