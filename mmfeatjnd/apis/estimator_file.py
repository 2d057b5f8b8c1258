"""Files that hold an estimator alone, tied to the host by a hash."""
import hashlib
from pathlib import Path
from typing import Union

import torch
from mmengine.model import is_model_wrapper
from torch import nn

from mmfeatjnd.models import find_neck
from mmfeatjnd.version import __version__
from .console import atomic_path

_FORMAT = 'mmfeatjnd.estimator'
#: Where the state of a FeatJND model is not the host's.
OWN_KEYS = ('neck.estimators.', 'featjnd_objective.')


def host_hash(model: nn.Module) -> str:
    """SHA-256 of the host's weights, whether or not FeatJND is built in.

    Args:
        model (nn.Module): A host, with or without a FeatJND neck.

    Returns:
        str: 64 hexadecimal digits over all parameters and buffers but the
        estimators, the objective and the batch counters.
    """
    digest = hashlib.sha256()
    for key, value in sorted(_host_state(model).items()):
        digest.update(f'{key}{tuple(value.shape)}{value.dtype}'.encode())
        data = value.detach().cpu().contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _host_state(model: nn.Module) -> dict:
    if is_model_wrapper(model):
        model = model.module
    state = {}
    for key, value in model.state_dict().items():
        key = key.removeprefix('module.')
        if key.startswith(OWN_KEYS):
            continue
        if key.endswith('num_batches_tracked'):
            continue
        state[key.replace('neck.neck.', 'neck.', 1)] = value
    return state


def save_estimator(model: nn.Module, path: Union[str, Path]) -> None:
    """Write the estimators of a model, and the hash of their host.

    Args:
        model (nn.Module): A model with a :class:`FeatJNDNeck`.
        path (str | Path): The file, written atomically.
    """
    neck = find_neck(model)
    content = dict(
        format=_FORMAT,
        version=__version__,
        split=neck.split,
        host_hash=host_hash(model),
        state_dict={
            k: v.detach().cpu()
            for k, v in neck.estimators.state_dict().items()
        })
    with atomic_path(str(path)) as partial:
        torch.save(content, partial)


def load_estimator(model: nn.Module, path: Union[str, Path]) -> None:
    """Load the estimators of a file onto the host that they belong to.

    Args:
        model (nn.Module): A model with a :class:`FeatJNDNeck`, its host
            loaded.
        path (str | Path): A file of :func:`save_estimator`.

    Raises:
        ValueError: The file is no estimator, or belongs to another host,
            split or estimator config. The model is left as it was.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(f'{path} is no estimator file: {error}') from error
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise ValueError(
            f'{path} is no estimator file. Make one from a checkpoint with '
            'tools/model_converters/extract_estimator.py.')
    neck = find_neck(model)
    if content['split'] != neck.split:
        raise ValueError(f"{path} was trained at split='{content['split']}', "
                         f"but the config has split='{neck.split}'.")
    if content['host_hash'] != host_hash(model):
        raise ValueError(
            f'{path} was trained for another host checkpoint (hash '
            f"{content['host_hash'][:8]}, but the loaded host has "
            f'{host_hash(model)[:8]}). Load the checkpoint that it was '
            'trained with.')
    expected = {k: v.shape for k, v in neck.estimators.state_dict().items()}
    given = {k: v.shape for k, v in content['state_dict'].items()}
    if given != expected:
        raise ValueError(f'{path} was trained with another estimator config '
                         '(levels, mode or width differ).')
    neck.estimators.load_state_dict(content['state_dict'])
