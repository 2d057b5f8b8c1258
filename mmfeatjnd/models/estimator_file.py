"""Files that hold an estimator alone, tied to the host by a hash."""
import hashlib
from pathlib import Path
from typing import Optional, Sequence, Union

import torch
from torch import nn

from mmfeatjnd.utils import ConfigError, unwrapped
from mmfeatjnd.version import __version__
from .hosts import OWN_KEYS, CheckpointError, host_key
from .necks.featjnd_neck import ALIASES, FeatJNDNeck, find_neck
from .splits import attached
from .tensor_file import FileKind

FORMAT_VERSION = 6
_KIND = FileKind(
    'mmfeatjnd.estimator', FORMAT_VERSION, 'estimator file',
    'Make one from a checkpoint with '
    'tools/model_converters/extract_estimator.py.',
    'Extract it again from its checkpoint.')
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
        >>> save_estimator(model, 'jnd.safetensors')
        >>> estimator_settings('jnd.safetensors')['split']
        'backbone.layer2'
    """
    neck = find_neck(model)
    state = {
        k: v.detach().cpu().contiguous()
        for k, v in neck.estimators.state_dict().items()
    }
    if not any(e.trained for e in neck.estimators):
        raise ValueError('the estimators of this model were never trained')
    classes = (getattr(unwrapped(model), 'dataset_meta', None) or {}).get(
        'classes')
    about = dict(
        **_about(neck),
        version=__version__,
        neck=neck.settings(),
        host=type(unwrapped(model)).__name__.removeprefix('FeatJND'),
        host_hash=host_hash(model),
        classes=classes and list(classes))
    try:
        _KIND.write(path, state, about, 'the model')
    except CheckpointError as error:
        raise CheckpointError(f'{error.args[0].partition(". Check")[0]}: '
                              'the estimator has diverged in training'
                              ) from error


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
        >>> save_estimator(model, 'jnd.safetensors')
        >>> state = read_estimator(model, 'jnd.safetensors')
        >>> state.keys() == find_neck(model).estimators.state_dict().keys()
        True
    """
    content, state = _KIND.read(path)
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
    shapes = {k: v.shape for k, v in neck.estimators.state_dict().items()}
    if {k: v.shape for k, v in state.items()} != shapes:
        raise CheckpointError(
            f'{path} was trained with another estimator config '
            '(its widths differ).')
    return state


def estimator_settings(path: Union[str, Path]) -> dict:
    """How the neck of an estimator file is built.

    Args:
        path (str | Path): A file of :func:`save_estimator`.

    Returns:
        dict: Arguments of :class:`FeatJNDNeck`.

    Raises:
        CheckpointError: It is no such file.
    """
    return _KIND.read(path)[0]['neck']


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
        >>> save_estimator(model, 'jnd.safetensors')
        >>> neck = neck_at(plain_model, estimator='jnd.safetensors')
        >>> neck.split == find_neck(model).split, neck.detached
        (True, True)
    """
    model = unwrapped(model)
    if any(isinstance(m, FeatJNDNeck) for m in model.modules()):
        neck, owner = find_neck(model), 'the config'
    elif estimator is not None:
        settings = dict(estimator_settings(estimator))
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
        >>> save_estimator(model, 'jnd.safetensors')
        >>> load_estimator(model, 'jnd.safetensors')
    """
    neck = find_neck(model) if neck is None else neck
    neck.estimators.load_state_dict(read_estimator(model, path, neck))
