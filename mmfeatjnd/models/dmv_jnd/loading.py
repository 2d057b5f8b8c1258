"""A trained DMV-JND, from its config and checkpoint."""
from pathlib import Path
from typing import Optional, Union

from mmfeatjnd.models.hosts import build_host
from mmfeatjnd.utils import read_config
from .dmv_jnd import DMVJND
from .weights import load_weights


def load_dmv_jnd(config: Union[str, dict],
                 checkpoint: Optional[str] = None) -> DMVJND:
    """A trained DMV-JND, frozen.

    Args:
        config (str | dict): The config that trained it, a file or its
            content.
        checkpoint (str, optional): Its checkpoint, which has the weights of
            its tasks as well. None is for a ``config`` given as a dict only:
            what that initializes the model with. Defaults to None.

    Returns:
        DMVJND: In evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: There is no such config or checkpoint.
        TypeError: The config's model is another one.
        ValueError: A config file without a checkpoint.
        CheckpointError: The checkpoint is of another config.
    """
    if checkpoint is None and isinstance(config, (str, Path)):
        raise ValueError(
            f'load_dmv_jnd: the config {str(config)!r} has no `checkpoint`, '
            'and an untrained DMV-JND means nothing. Name that of '
            f'tools/train.py {config}.')
    model = build_host(read_config(config))
    if not isinstance(model, DMVJND):
        raise TypeError(
            'load_dmv_jnd: the model of the config must be a '
            f"'mmfeatjnd.DMVJND', but it is a {type(model).__name__}.")
    if checkpoint is None:
        model.init_weights()
    else:
        load_weights(model, checkpoint, 'load_dmv_jnd',
                     'Name that of a trained DMV-JND.')
    return model.eval().requires_grad_(False)
