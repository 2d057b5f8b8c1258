"""The checkpoint that a run of a command-line tool starts from."""
from pathlib import Path
from typing import Any, List, Optional, Set

from mmengine.config import Config

from mmfeatjnd.apis.checkpoints import (
    explained,
    is_url,
    read_checkpoint,
    weights_of,
)
from mmfeatjnd.apis.zoo import find_model, get_checkpoint
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.utils import log, on_first_rank, type_name
from .console import UsageError

#: How to pass another checkpoint to ``tools/train.py``: to start from, and to
#: resume from.
LOAD_FROM = '--cfg-options load_from={}'
RESUME = '--resume {}'


def named_checkpoint(config: str) -> str:
    """The checkpoint of a model that is named in place of a config.

    Args:
        config (str): The argument.

    Returns:
        str: The file, downloaded.

    Raises:
        UsageError: It is a file, which says nothing of a checkpoint.
        CheckpointError: It cannot be had.
    """
    if Path(config).is_file():
        raise UsageError(f'which checkpoint of {config}? Give one, or the '
                         'name of a model in place of the config')
    model = find_model(config)
    try:
        return on_first_rank(lambda: get_checkpoint(config))
    except OSError as error:
        raise explained(str(model.weights), CheckpointError(str(error)),
                        'python tools/test.py CONFIG {}') from error


def ensure_checkpoint(cfg: Config,
                      remedy: Optional[str] = None) -> Optional[Set[str]]:
    """Fetch, and look into, the checkpoint that a run starts from.

    Its tensors are left to the Runner to read. Under a launcher only rank 0
    looks, and the process group must exist.

    Args:
        cfg (Config): The config.
        remedy (str, optional): How to pass a file by hand, with ``{}`` for
            its path. Defaults to None: by the flags of ``tools/train.py``.

    Returns:
        set[str], optional: Names of the checkpoint's parameters. None
        without a checkpoint, or if it is neither a file nor a URL.

    Raises:
        CheckpointError: On every rank, if it cannot be read, or does not hold
            what the run needs.
    """
    source = cfg.get('load_from')
    # mmengine resolves names such as torchvision://, if ever they occur here
    if not source or ('://' in source and not is_url(source)):
        return None
    resume = bool(cfg.get('resume'))

    def names() -> Set[str]:
        try:
            checkpoint = read_checkpoint(source)
            weights = weights_of(checkpoint)
            if resume:
                _check_state(checkpoint)
        except CheckpointError as error:
            way = remedy or (RESUME if resume else LOAD_FROM)
            raise explained(source, error, way) from error
        return {str(name).removeprefix('module.') for name in weights}

    return on_first_rank(names)


def _check_state(checkpoint: dict) -> None:
    meta = checkpoint.get('meta')
    if 'message_hub' not in checkpoint or not isinstance(
            meta, dict) or not {'epoch', 'iter'} <= set(meta):
        raise CheckpointError(
            'it holds weights, but not the state of a training. To start '
            'from weights, pass them as ' + LOAD_FROM.format('FILE'))


def drop_pretrained(cfg: Config, names: Optional[Set[str]]) -> List[str]:
    """Remove the initialization that a checkpoint will overwrite.

    ``Runner.train`` initializes the weights before it loads a checkpoint and
    would download a pretrained backbone only to discard it. An ``init_cfg``
    or ``pretrained`` is removed if the checkpoint has parameters for that
    module; one whose module is not in the checkpoint, such as an estimator
    trained earlier, is kept.

    Args:
        cfg (Config): The config, ``cfg.model`` is edited in place.
        names (set[str], optional): Parameters in the checkpoint, from
            :func:`ensure_checkpoint`. With None nothing is removed.

    Returns:
        list[str]: What was removed, as dotted paths.
    """
    dropped: List[str] = []
    if names:
        _drop(cfg.model, '', names, dropped)
    if dropped:
        log('load_from replaces these pretrained weights, which are not '
            f'loaded: {", ".join(dropped)}')
    return dropped


def _drop(node: Any, path: str, names: Set[str], dropped: List[str]) -> None:
    if isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            _drop(child, f'{path}{i}.', names, dropped)
        return
    if not isinstance(node, dict):
        return
    # the whole model counts as covered when its backbone is
    prefix = path or 'backbone.'
    if any(name.startswith(prefix) for name in names):
        init = node.get('init_cfg')
        several = isinstance(init, (list, tuple))
        rest = [
            c for c in (init if several else [init]) if not _is_pretrained(c)
        ]
        if several and len(rest) < len(init):
            node['init_cfg'] = rest
            dropped.append(f'model.{path}init_cfg')
        elif not several and not rest:
            del node['init_cfg']
            dropped.append(f'model.{path}init_cfg')
        if isinstance(node.get('pretrained'), str):
            node['pretrained'] = None
            dropped.append(f'model.{path}pretrained')
    for key in list(node):
        if key != 'init_cfg':
            _drop(node[key], f'{path}{key}.', names, dropped)


def _is_pretrained(init: Any) -> bool:
    return isinstance(init, dict) and type_name(init) in ('Pretrained',
                                                           'PretrainedInit')
