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


class CheckpointError(ValueError):
    """A checkpoint, or an estimator file, that does not hold what is needed
    of it; the message says what, and what to change."""


#: Where the state of a FeatJND model is not the host's.
OWN_KEYS = ('neck.estimators.', 'featjnd_')


def _plain_key(key: str) -> str:
    return key.removeprefix('module.')


def host_key(key: str) -> str:
    """The name of an entry of a FeatJND model in the plain host."""
    return _plain_key(key).replace('neck.neck.', 'neck.', 1)


def check_host_weights(model: nn.Module,
                       state_dict: dict,
                       source: str = 'the checkpoint') -> None:
    """Raise unless a state holds all weights of a host, in its shapes: its
    parameters and the statistics of its batch norms.

    Args:
        model (nn.Module): The host, with FeatJND or plain.
        state_dict (dict): Names to tensors, of FeatJND or of the plain host.
        source (str): Where they come from, for the error. Defaults to 'the
            checkpoint'.

    Raises:
        CheckpointError: Parameters are missing or have other shapes.
    """
    # a FeatJND neck loads neck.X of the plain host as well as neck.neck.X of
    # its own; a plain host's neck does not
    ours = hasattr(getattr(model, 'neck', None), 'estimators')
    name_of = host_key if ours else _plain_key
    given = {name_of(k): v for k, v in state_dict.items()}
    entries = dict(model.named_parameters())
    entries.update((k, b) for k, b in model.named_buffers()
                   if k.endswith(('running_mean', 'running_var')))
    expected = {
        name_of(k): tuple(x.shape)
        for k, x in entries.items() if not k.startswith(OWN_KEYS)
    }
    missing = [k for k in expected if k not in given]
    if missing:
        raise CheckpointError(
            f'{source} lacks {len(missing)} of {len(expected)} weights of '
            f"{type(model).__name__}, e.g. '{missing[0]}': it belongs to "
            'another config. Name the checkpoint of the host.')
    wrong = {
        k: getattr(given[k], 'shape', type(given[k]).__name__)
        for k, shape in expected.items()
        if tuple(getattr(given[k], 'shape', ('no tensor', ))) != shape
    }
    if wrong:
        name, shape = next(iter(wrong.items()))
        found = shape if isinstance(shape, str) else tuple(shape)
        raise CheckpointError(
            f'{source} has {len(wrong)} of {len(expected)} weights of '
            f"{type(model).__name__} in other shapes, e.g. '{name}': {found} "
            f'instead of {expected[name]}. It belongs to another config.')


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
    """A host's class with a mixin on top.

    It is made at run time, where pickle does not find it; so its instances
    are pickled, and copied, by how it is made.

    Args:
        mixin (type): With ``prefix``, which the class is named by.
        host (type): A class of a host library.

    Returns:
        type: The same class for the same two.
    """

    def __reduce__(self):
        return _empty, (mixin, host), self.__dict__

    return type(f'{mixin.prefix}{host.__name__}', (mixin, host), {
        '__module__': mixin.__module__,
        '__doc__': host.__doc__,
        '__reduce__': __reduce__
    })


def _empty(mixin: type, host: type):
    cls = extended_class(mixin, host)
    return cls.__new__(cls)
