"""The checkpoint that a run of a command-line tool starts from."""
import os.path as osp
import socket
import sys
import zipfile
from contextlib import nullcontext
from urllib.parse import urlparse

import torch
from mmengine.dist import broadcast_object_list, get_dist_info, is_distributed
from mmengine.runner import CheckpointLoader
from mmengine.utils.dl_utils import load_url

from .console import UsageError, log
from .library import type_name

TIMEOUT = 60  # seconds without an answer of the server
REMEDIES = {False: '--cfg-options load_from={}', True: '--resume {}'}


class BadCheckpoint(ValueError):
    """A file that is no checkpoint, or no whole one."""


def read_checkpoint(source):
    """Read a checkpoint, its tensors only when they are looked at.

    Args:
        source (str): A file, or an ``http(s)`` URL: read from the cache of
            ``torch.hub``, or downloaded into it.

    Returns:
        dict: The checkpoint, on the CPU.

    Raises:
        BadCheckpoint: It cannot be read, or is none.
    """
    if not _is_url(source) and not osp.exists(source):
        raise BadCheckpoint('there is no such file')
    try:
        with _mapped(_cached(source) if _is_url(source) else source):
            checkpoint = _load(source)
    except Exception as error:  # whatever damaged data may lead to
        raise BadCheckpoint(f'{type(error).__name__}: {error}') from error
    if not isinstance(checkpoint, dict):
        raise BadCheckpoint(
            f'there are no weights in it, but a {type(checkpoint).__name__}')
    return checkpoint


def weights_of(checkpoint):
    """The weights in a checkpoint.

    Args:
        checkpoint (dict): A training checkpoint or bare weights.

    Returns:
        dict: Name to tensor.

    Raises:
        BadCheckpoint: There are none, or only those of an estimator.
    """
    if checkpoint.get('format') == 'mmfeatjnd.estimator':
        raise BadCheckpoint('this file holds an estimator without its host')
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict) or not any(
            isinstance(value, torch.Tensor) for value in weights.values()):
        raise BadCheckpoint('there are no weights in it')
    return weights


def read_weights(path, remedy=None):
    """Read the weights of a checkpoint that a tool was given.

    Args:
        path (str): The file.
        remedy (str, optional): How to pass another one, see
            :func:`ensure_checkpoint`. Defaults to None: it goes without
            saying.

    Returns:
        dict: Name to tensor.

    Raises:
        UsageError: There are none.
    """
    try:
        return weights_of(read_checkpoint(path))
    except BadCheckpoint as error:
        raise UsageError(_explain(path, error, remedy)) from error


def on_first_rank(function):
    """Run a function on rank 0 only.

    Args:
        function (Callable): Without arguments.

    Returns:
        Any: What it returns, on every rank.

    Raises:
        UsageError: On every rank, if it raises one.
    """
    result = [None, None]
    if get_dist_info()[0] == 0:
        try:
            result[0] = function()
        except UsageError as error:
            result[1] = str(error)
    if is_distributed():
        broadcast_object_list(result)
    if result[1]:
        raise UsageError(result[1])
    return result[0]


def ensure_checkpoint(cfg, remedy=None):
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
        UsageError: On every rank, if it cannot be read, or does not hold what
            the run needs.
    """
    source = cfg.get('load_from')
    # mmengine resolves names such as torchvision://, if ever they occur here
    if not source or ('://' in source and not _is_url(source)):
        return None
    resume = bool(cfg.get('resume'))

    def names():
        try:
            checkpoint = read_checkpoint(source)
            weights = weights_of(checkpoint)
            if resume:
                _check_state(checkpoint)
        except BadCheckpoint as error:
            raise UsageError(
                _explain(source, error, remedy or REMEDIES[resume])) from error
        return {str(name).removeprefix('module.') for name in weights}

    return on_first_rank(names)


def _check_state(checkpoint):
    meta = checkpoint.get('meta')
    if 'message_hub' not in checkpoint or not isinstance(
            meta, dict) or not {'epoch', 'iter'} <= set(meta):
        raise BadCheckpoint(
            'it holds weights, but not the state of a training. To start '
            'from weights, pass them as ' + REMEDIES[False].format('FILE'))


def _is_url(path):
    return path.startswith(('http://', 'https://'))


def _cached(url):
    return osp.join(torch.hub.get_dir(), 'checkpoints',
                    osp.basename(urlparse(url).path))


def _mapped(path):
    """Let torch read a file's tensors when they are looked at, where it can:
    not in files older than its zip format."""
    if not zipfile.is_zipfile(path):
        return nullcontext()
    try:
        from torch.utils.serialization import config
    except ImportError:  # before torch 2.7
        return nullcontext()
    return config.patch('load.mmap', True)


def _load(source):
    if not _is_url(source):
        return CheckpointLoader.load_checkpoint(
            source, map_location='cpu', logger='silent')
    # not CheckpointLoader: it waits for the other ranks
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        return load_url(
            source, map_location='cpu', progress=sys.stderr.isatty())
    finally:
        socket.setdefaulttimeout(timeout)


def _explain(source, error, remedy):
    if not _is_url(source):
        lines = [f'cannot read the checkpoint {source}', f'  {error}']
        if remedy:
            path = f'/path/to/{osp.basename(source)}'
            lines += ['Pass a checkpoint that exists and holds weights:',
                      '  ' + remedy.format(path)]
        return '\n'.join(lines)
    name, cached = osp.basename(urlparse(source).path), _cached(source)
    lines = [f'cannot fetch the checkpoint {source}', f'  {error}']
    if osp.exists(cached):
        lines.append(f'The copy {cached} may be damaged: delete it.')
    lines += [
        f'Get the file {name} in another way and pass it:',
        '  ' + (remedy or REMEDIES[False]).format(f'/path/to/{name}'),
        f'or put it at {cached}',
    ]
    return '\n'.join(lines)


def drop_pretrained(cfg, names):
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
    dropped = []
    if names:
        _drop(cfg.model, '', names, dropped)
    if dropped:
        log('load_from replaces these pretrained weights, which are not '
            f'loaded: {", ".join(dropped)}')
    return dropped


def _drop(node, path, names, dropped):
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


def _is_pretrained(init):
    return isinstance(init, dict) and type_name(init) in ('Pretrained',
                                                           'PretrainedInit')
