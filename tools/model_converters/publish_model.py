"""Reduce a training checkpoint to its weights and name it by its hash.

The result holds tensors and plain Python values only, so that
``torch.load`` reads it with ``weights_only=True``. Example::

    python tools/model_converters/publish_model.py epoch_12.pth jnd.pth

writes ``jnd-<first 8 hex digits of its SHA-256>.pth``.
"""
import argparse
import hashlib
import io
from collections import OrderedDict

import numpy as np
import torch

from mmfeatjnd.apis.checkpoints import read_checkpoint, weights_of
from mmfeatjnd.cli.console import UsageError, plain_errors
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.utils import atomic_path, check_writable, load_safely


def plain(value):
    """Return a value made of Python's own types and tensors."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(v) for v in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, set):
        return sorted(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def published(checkpoint):
    """Return the weights and the meta data of a checkpoint.

    Args:
        checkpoint (dict): A training checkpoint or a bare ``state_dict``.

    Returns:
        dict: ``state_dict`` and ``meta``. Where the run kept an average of
        the weights, MMEngine has put it into ``state_dict``.

    Raises:
        CheckpointError: If there are no weights in it, or something else, too.
    """
    weights = weights_of(checkpoint)
    others = [k for k, v in weights.items() if not torch.is_tensor(v)]
    if others:
        raise CheckpointError(
            f'{others[0]!r} is no tensor: what is published is loaded with '
            'weights_only=True, and holds nothing but weights')
    # a copy, because a view would be saved with all of its storage
    state_dict = OrderedDict(
        (k, v.detach().cpu().clone()) for k, v in weights.items())
    if hasattr(weights, '_metadata'):
        state_dict._metadata = plain(weights._metadata)
    meta = checkpoint.get('meta', {}) if 'state_dict' in checkpoint else {}
    return dict(meta=plain(meta), state_dict=state_dict)


def publish(in_file, out_file):
    """Write the published form of a checkpoint.

    Args:
        in_file (str): The training checkpoint.
        out_file (str): The file wanted, to which the hash is added.

    Returns:
        str: Path of the file written.
    """
    check_writable(out_file)
    try:
        content = published(read_checkpoint(in_file))
    except CheckpointError as error:
        raise UsageError(
            f'cannot publish {in_file}\n  {error}') from error
    # in memory, because torch writes a file's name into the file
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()[:8]
    path = f'{out_file.removesuffix(".pth")}-{digest}.pth'
    with atomic_path(path) as partial, open(partial, 'wb') as file:
        file.write(data)
    return path


def main():
    parser = argparse.ArgumentParser(description='Publish a checkpoint')
    parser.add_argument('in_file', help='training checkpoint')
    parser.add_argument('out_file', help='file to write, before the hash')
    args = parser.parse_args()
    with plain_errors():
        load_safely()
        print(publish(args.in_file, args.out_file))


if __name__ == '__main__':
    main()
