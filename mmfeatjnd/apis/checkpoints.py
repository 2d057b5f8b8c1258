"""Checkpoints read with care: from files and URLs, whole or not."""
import os.path as osp
import zipfile
from contextlib import nullcontext
from typing import ContextManager, Dict, Optional
from urllib.parse import urlparse

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmfeatjnd.models.hosts import CheckpointError, check_host_weights
from mmfeatjnd.utils import UnsafeCheckpoint, safe_loading
from mmfeatjnd.utils.download import MIRROR, cached_path, fetch


def read_checkpoint(source: str) -> dict:
    """Read a checkpoint, its tensors only when they are looked at.

    Args:
        source (str): A file, or an ``http(s)`` URL: read from the cache of
            ``torch.hub``, or downloaded into it.

    Returns:
        dict: The checkpoint, on the CPU.

    Raises:
        CheckpointError: It cannot be read, or is none. The message does not
            name it, see :func:`explained`.

    Example:
        >>> read_checkpoint(checkpoint)['meta']['iter']
        1
    """
    if not is_url(source) and not osp.exists(source):
        raise CheckpointError('there is no such file')
    if source.endswith('.safetensors'):
        raise CheckpointError('this is no checkpoint: an estimator, a metric, '
                              'a plan or half of a host')
    try:
        path = str(fetch(source)) if is_url(source) else source
        # not by the loader of URLs, which waits for the other ranks
        with _mapped(path), safe_loading():
            content = CheckpointLoader.load_checkpoint(
                path, map_location='cpu', logger='silent')
    except UnsafeCheckpoint as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:  # whatever damaged data may lead to
        raise CheckpointError(f'{type(error).__name__}: {error}') from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f'there are no weights in it, but a {type(content).__name__}')
    return content


def weights_of(checkpoint: dict) -> Dict[str, Tensor]:
    """The weights in a checkpoint.

    Args:
        checkpoint (dict): A training checkpoint or bare weights.

    Returns:
        dict[str, Tensor]: Name to tensor.

    Raises:
        CheckpointError: There are none.

    Example:
        >>> weights_of(dict(state_dict=dict(w=torch.zeros(2))))
        {'w': tensor([0., 0.])}
    """
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict) or not any(
            isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError('there are no weights in it')
    return weights


def read_weights(source: str,
                 remedy: Optional[str] = None) -> Dict[str, Tensor]:
    """Read the weights of a checkpoint.

    Args:
        source (str): See :func:`read_checkpoint`.
        remedy (str, optional): See :func:`explained`. Defaults to None.

    Returns:
        dict[str, Tensor]: Name to tensor.

    Raises:
        CheckpointError: There are none. The message names the file.

    Example:
        >>> weights = read_weights(checkpoint)
        >>> weights['backbone.conv1.weight'].shape
        torch.Size([8, 3, 3, 3])
    """
    try:
        return weights_of(read_checkpoint(source))
    except CheckpointError as error:
        raise explained(source, error, remedy) from error


def explained(source: str,
              error: CheckpointError,
              remedy: Optional[str] = None) -> CheckpointError:
    """An error that also names the checkpoint, and says what to do.

    Args:
        source (str): The checkpoint, a file or a URL.
        error (CheckpointError): Error of :func:`read_checkpoint` or
            :func:`weights_of`.
        remedy (str, optional): How another file is passed, with ``{}`` for
            its path. Defaults to None: it goes without saying.

    Returns:
        CheckpointError: To be raised.
    """
    if not is_url(source):
        lines = [f'cannot read the checkpoint {source}', f'  {error}']
        if remedy:
            path = f'/path/to/{osp.basename(source)}'
            lines += ['Pass a checkpoint that exists and holds weights:',
                      '  ' + remedy.format(path)]
        return CheckpointError('\n'.join(lines))
    name, cached = osp.basename(urlparse(source).path), cached_path(source)
    lines = [f'cannot fetch the checkpoint {source}', f'  {error}']
    if osp.exists(cached):
        lines.append(f'The copy {cached} may be damaged: delete it.')
    if remedy:
        lines += [
            f'Get the file {name} in another way and pass it:',
            '  ' + remedy.format(f'/path/to/{name}'),
            f'or put it at {cached}',
        ]
    else:
        lines.append(f'Get the file {name} in another way and put it at '
                     f'{cached}')
    lines.append(f'or set {MIRROR} to an address or a folder that has it.')
    return CheckpointError('\n'.join(lines))


def is_url(path: str) -> bool:
    """Whether a checkpoint is named by a URL that is downloaded."""
    return path.startswith(('http://', 'https://'))


def _mapped(path: str) -> ContextManager:
    """Let torch read a file's tensors when they are looked at, where it can:
    not in files older than its zip format."""
    if not zipfile.is_zipfile(path):
        return nullcontext()
    try:
        from torch.utils.serialization import config
    except ImportError:  # before torch 2.7
        return nullcontext()
    return config.patch('load.mmap', True)


def load_host(model: torch.nn.Module, weights: Dict[str, Tensor],
              checkpoint: str) -> None:
    """Load weights that may lack the estimators, but nothing else.

    Args:
        model (nn.Module): The host, with a FeatJND neck or plain.
        weights (dict[str, Tensor]): Those of the checkpoint.
        checkpoint (str): Its name, for errors.

    Raises:
        CheckpointError: They are not the host's.
    """
    state = {k.removeprefix('module.'): v for k, v in weights.items()}
    check_host_weights(model, state, checkpoint)
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of what is not the host's
        raise CheckpointError(f'{checkpoint}: {error}') from error
