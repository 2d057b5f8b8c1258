"""All weights of a model, from a checkpoint of it and of nothing else."""
from pathlib import Path
from typing import Union

from mmengine.runner import load_checkpoint
from torch import nn

from mmfeatjnd.models.hosts import CheckpointError, check_checkpoint
from mmfeatjnd.utils import UnsafeCheckpoint, safe_loading


def load_weights(model: nn.Module, checkpoint: Union[str, Path], who: str,
                 remedy: str) -> None:
    """Load all weights of a model, in place.

    Args:
        model (nn.Module): The model, on any device.
        checkpoint (str | Path): Path or URL.
        who (str): What needs the checkpoint, for errors.
        remedy (str): What to do, for errors; a sentence.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        CheckpointError: It lacks weights, has others, or other shapes.
    """
    checkpoint = str(checkpoint)
    check_checkpoint(checkpoint, who, remedy)
    try:
        with safe_loading():
            load_checkpoint(model, checkpoint, map_location='cpu',
                            strict=True)
    except UnsafeCheckpoint as error:
        raise CheckpointError(f'{who}: {checkpoint!r}: {error}') from error
    except RuntimeError as error:
        raise CheckpointError(
            f'{who}: {checkpoint!r} is not a checkpoint of this config. '
            f'{remedy}\n{error}') from error
