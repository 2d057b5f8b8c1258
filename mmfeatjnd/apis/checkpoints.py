"""The checkpoint that a run of a command-line tool starts from."""
import os.path as osp
import socket
import sys
from urllib.parse import urlparse

import torch
from mmengine.dist import broadcast_object_list, get_dist_info, is_distributed
from mmengine.runner import CheckpointLoader, find_latest_checkpoint
from mmengine.utils.dl_utils import load_url

from .cli import type_name
from .console import UsageError, log

TIMEOUT = 60  # seconds without an answer of the server


def ensure_checkpoint(cfg, remedy='--cfg-options load_from={}'):
    """Fetch the checkpoint that a run starts from, before the run.

    An ``http(s)`` URL is read from the cache of ``torch.hub`` or downloaded
    into it, where the Runner finds it. Under a launcher only rank 0 reads,
    and the process group must exist.

    Args:
        cfg (Config): The config.
        remedy (str): How to pass a file by hand. Defaults to
            ``'--cfg-options load_from={}'``.

    Returns:
        set[str], optional: Names of the checkpoint's parameters. None
        without a checkpoint, or if it is neither a file nor a URL.

    Raises:
        UsageError: On every rank, if it cannot be read.
    """
    source = cfg.get('load_from')
    if not source and cfg.get('resume'):
        source = find_latest_checkpoint(cfg.work_dir)
    # mmengine resolves names such as torchvision://, if ever they occur here
    if not source or ('://' in source and not _is_url(source)):
        return None
    result = [None, None]
    if get_dist_info()[0] == 0:
        try:
            result[0] = _parameter_names(source)
        except Exception as error:  # whatever it is, the remedy is the same
            result[1] = _explain(source, error, remedy)
    if is_distributed():
        broadcast_object_list(result)
    names, problem = result
    if problem:
        raise UsageError(problem)
    return names


def _is_url(path):
    return path.startswith(('http://', 'https://'))


def _parameter_names(source):
    if _is_url(source):
        # not CheckpointLoader: it waits for the other ranks
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT)
        try:
            checkpoint = load_url(
                source, map_location='cpu', progress=sys.stderr.isatty())
        finally:
            socket.setdefaulttimeout(timeout)
    else:
        checkpoint = CheckpointLoader.load_checkpoint(
            source, map_location='cpu', logger='silent')
    if checkpoint.get('format') == 'mmfeatjnd.estimator':
        raise ValueError('this file holds an estimator without its host')
    weights = checkpoint.get('state_dict', checkpoint)
    return {name.removeprefix('module.') for name in weights}


def _explain(source, error, remedy):
    reason = f'{type(error).__name__}: {error}'
    if not _is_url(source):
        name = osp.basename(source)
        return (f'cannot read the checkpoint {source}\n  {reason}\n'
                'Pass a checkpoint file that exists:\n  '
                + remedy.format(f'/path/to/{name}'))
    name = osp.basename(urlparse(source).path)
    cached = osp.join(torch.hub.get_dir(), 'checkpoints', name)
    lines = [f'cannot fetch the checkpoint {source}', f'  {reason}']
    if osp.exists(cached):
        lines.append(f'The copy {cached} may be damaged: delete it.')
    lines += [
        f'Get the file {name} in another way and pass it:',
        '  ' + remedy.format(f'/path/to/{name}'),
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
