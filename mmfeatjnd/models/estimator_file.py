"""Files that hold an estimator alone, tied to the host by a hash."""
import hashlib
from pathlib import Path
from typing import Dict, Optional, Sequence, Union

import torch
from torch import nn

from mmfeatjnd.utils import ConfigError, atomic_path, unwrapped
from mmfeatjnd.version import __version__
from .hosts import OWN_KEYS, CheckpointError, host_key
from .necks.featjnd_neck import ALIASES, FeatJNDNeck, find_neck
from .splits import attached

_FORMAT = 'mmfeatjnd.estimator'
#: Of the file; raised where older readers would take it for something else.
FORMAT_VERSION = 5
#: Attribute of a host that lacks a part of its weights.
WHOLE_HASH = 'featjnd_host_hash'


def host_hash(model: nn.Module) -> str:
    """SHA-256 of the host's weights, whether or not FeatJND is built in.

    Args:
        model (nn.Module): A host, with or without a FeatJND neck.

    Returns:
        str: 64 hexadecimal digits over all parameters and buffers but the
        estimators, the objective and the batch counters. A host of which one
        side of a split is there carries that of the whole.

    Example:
        >>> len(host_hash(model))
        64
    """
    known = getattr(unwrapped(model), WHOLE_HASH, None)
    if known is not None:
        return known
    digest = hashlib.sha256()
    for key, value in sorted(host_state(model).items()):
        digest.update(f'{key}{tuple(value.shape)}{value.dtype}'.encode())
        data = value.detach().cpu().contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def host_state(model: nn.Module) -> dict:
    """The host's weights by the names that the plain host has for them, in
    the model's own memory; without batch counters."""
    state = {}
    for key, value in unwrapped(model).state_dict().items():
        if key.removeprefix('module.').startswith(OWN_KEYS):
            continue
        if key.endswith('num_batches_tracked'):
            continue
        state[host_key(key)] = value
    return state


def _about(neck: FeatJNDNeck) -> dict:
    """What estimators must have in common to stand in for each other."""
    return dict(
        types=sorted({type(e).__name__ for e in neck.estimators}),
        mode=[e.mode for e in neck.estimators],
        log_range=[float(e.log_range) for e in neck.estimators])


def save_estimator(model: nn.Module, path: Union[str, Path]) -> None:
    """Write the estimators of a model, and the hash of their host.

    Args:
        model (nn.Module): A model with a :class:`FeatJNDNeck`.
        path (str | Path): The file, written atomically.

    Raises:
        ValueError: The estimators were never trained, or have diverged.

    Example:
        >>> save_estimator(model, 'jnd.pth')
        >>> sorted(torch.load('jnd.pth'))[:4]
        ['format', 'format_version', 'host_hash', 'log_range']
    """
    neck = find_neck(model)
    state = {
        k: v.detach().cpu()
        for k, v in neck.estimators.state_dict().items()
    }
    if not any(e.trained for e in neck.estimators):
        raise ValueError('the estimators of this model were never trained')
    _check_values(state, 'the model')
    content = dict(
        format=_FORMAT,
        format_version=FORMAT_VERSION,
        version=__version__,
        **_about(neck),
        neck=neck.settings(),
        host_hash=host_hash(model),
        state_dict=state)
    with atomic_path(str(path)) as partial:
        torch.save(content, partial)


def _check_values(state: Dict[str, torch.Tensor], source: object) -> None:
    broken = [k for k, v in state.items() if not v.isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{source}: NaN or infinite values in {broken[0]!r}: '
            'the estimator has diverged in training')


def read_estimator(model: nn.Module,
                   path: Union[str, Path],
                   neck: Optional[FeatJNDNeck] = None) -> dict:
    """Read the estimators of a file, for the host that they belong to.

    Args:
        model (nn.Module): The host, its weights loaded. It is not changed.
        path (str | Path): A file of :func:`save_estimator`.
        neck (FeatJNDNeck, optional): The neck that gets them. Defaults to
            None: the model's.

    Returns:
        dict[str, Tensor]: The state of ``neck.estimators``.

    Raises:
        CheckpointError: The file is no estimator, has diverged, or belongs to
            another host, split, mode or estimator config.

    Example:
        >>> save_estimator(model, 'jnd.pth')
        >>> state = read_estimator(model, 'jnd.pth')
        >>> state.keys() == find_neck(model).estimators.state_dict().keys()
        True
    """
    content = _read(path)
    if neck is None:
        neck = find_neck(model)
    given = {**content['neck'], **content}
    expected = dict(
        split=neck.split, levels=list(neck.levels or ()), **_about(neck))
    for name, ours in expected.items():
        theirs = given[name]
        if theirs != ours:
            raise CheckpointError(
                f'{path} was trained with {name}={theirs!r}, but '
                f'the config has {name}={ours!r}.')
    if content.get('host_hash') != host_hash(model):
        raise CheckpointError(
            f'{path} was trained for another host checkpoint (hash '
            f"{content.get('host_hash', '?')[:8]}, but the loaded host has "
            f'{host_hash(model)[:8]}). Load the checkpoint that it was '
            'trained with.')
    state = content.get('state_dict', {})
    shapes = {k: v.shape for k, v in neck.estimators.state_dict().items()}
    if {k: v.shape for k, v in state.items()} != shapes:
        raise CheckpointError(
            f'{path} was trained with another estimator config '
            '(its widths differ).')
    _check_values(state, path)
    return state


def _read(path: Union[str, Path]) -> dict:
    """The content of a file of this format."""
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f'{path} is no estimator file: {error}') from error
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise CheckpointError(
            f'{path} is no estimator file. Make one from a checkpoint with '
            'tools/model_converters/extract_estimator.py.')
    version = content.get('format_version')
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f'{path} has version {version} of the format (mmfeatjnd '
            f'{content.get("version")}), but this mmfeatjnd ({__version__}) '
            f'reads version {FORMAT_VERSION}. Extract it again from its '
            'checkpoint.')
    return content


def neck_at(model: nn.Module,
            split: Optional[str] = None,
            levels: Optional[Sequence[int]] = None,
            estimator: Optional[Union[str, Path]] = None) -> FeatJNDNeck:
    """The FeatJND neck of any model.

    A model that has none gets one that is no part of it: its parameters, keys
    and code stay as they are, and the split is reached by forward hooks while
    something runs.

    Args:
        model (nn.Module): A host with or without a FeatJND neck.
        split (str, optional): See :class:`FeatJNDNeck`. Defaults to None:
            that of the model's neck or of the estimator file, else
            'backbone'.
        levels (Sequence[int], optional): See there. Defaults to None: those
            of the model's neck or of the estimator file, else all.
        estimator (str | Path, optional): A file of :func:`save_estimator`,
            which says how a neck of its own is built. Its weights are loaded
            by :func:`load_estimator`, once those of the host are there.
            Defaults to None: no estimator.

    Returns:
        FeatJNDNeck: It knows its host.

    Raises:
        ConfigError: There is no such split, or the model's neck or the file
            has another one, or other levels.
        CheckpointError: The file is no estimator file.

    Example:
        >>> save_estimator(model, 'jnd.pth')
        >>> neck = neck_at(plain_model, estimator='jnd.pth')
        >>> neck.split == find_neck(model).split, neck.detached
        (True, True)
    """
    model = unwrapped(model)
    if any(isinstance(m, FeatJNDNeck) for m in model.modules()):
        neck, owner = find_neck(model), 'the config'
    elif estimator is not None:
        settings = dict(_read(estimator)['neck'])
        cfg = settings.pop('estimator')
        neck, owner = FeatJNDNeck(**settings), estimator
        try:
            neck.build_estimators(cfg)
        except KeyError as error:
            raise CheckpointError(
                f'{estimator} needs the estimator {cfg["type"]!r}, which is '
                'not registered. Import the module that does so.') from error
        neck.bind(model)
    else:
        neck, owner = FeatJNDNeck(split=split or 'backbone',
                                  levels=levels), ''
        neck.bind(model)
    if owner and ((split and ALIASES.get(split, split) != neck.split) or
                  (levels and tuple(levels) != neck.levels)):
        raise ConfigError(
            f"split='{split}' and levels={levels} are asked for, but {owner} "
            f"has split='{neck.split}' and {neck.configured}. Leave them out.")
    with attached(neck):
        pass  # a split that does not exist fails here
    return neck


def load_estimator(model: nn.Module,
                   path: Union[str, Path],
                   neck: Optional[FeatJNDNeck] = None) -> None:
    """:func:`read_estimator` into a neck.

    Args:
        model (nn.Module): See there.
        path (str | Path): See there.
        neck (FeatJNDNeck, optional): See there. Defaults to None: the
            model's.

    Raises:
        CheckpointError: See there. The model is left as it was.

    Example:
        >>> save_estimator(model, 'jnd.pth')
        >>> load_estimator(model, 'jnd.pth')
    """
    neck = find_neck(model) if neck is None else neck
    neck.estimators.load_state_dict(read_estimator(model, path, neck))
