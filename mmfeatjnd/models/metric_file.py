"""Files that hold the task metric of a split, tied to the host by a hash."""
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

from torch import Tensor, nn

from mmfeatjnd.utils import unwrapped
from mmfeatjnd.version import __version__
from .estimator_file import host_hash
from .hosts import CheckpointError
from .necks.featjnd_neck import ALIASES, FeatJNDNeck, find_neck
from .tensor_file import FileKind

#: Of the file; raised where older readers would take it for something else.
FORMAT_VERSION = 1
_MAKE = 'Make one with tools/estimate_metric.py.'
_KIND = FileKind('mmfeatjnd.metric', FORMAT_VERSION, 'metric file', _MAKE,
                 'Estimate it again with tools/estimate_metric.py.')


class FrequencyMetric(NamedTuple):
    """Moments of a level in the coefficients of a block DCT, F = block**2
    frequencies row by row; see :func:`mmfeatjnd.functional.block_dct`.

    Attributes:
        block (int): Side of a block, tokens.
        blocks (float): Mean number of blocks of a picture.
        mean (Tensor): (F, C), of the feature, padded by its edge.
        covariance (Tensor): (F, C, C), of the same.
        metric (Tensor): (F, C, C), E[g g^T], nats per square of a
            coefficient.
    """
    block: int
    blocks: float
    mean: Tensor
    covariance: Tensor
    metric: Tensor


class LevelMetric(NamedTuple):
    """What is known of one level, over all tokens of the pictures but those
    of their padding. Tensors are float32.

    Attributes:
        tokens (float): Mean number T of tokens of a picture.
        elements_per_pixel (float): T * C over the pixels of a picture as the
            host takes it.
        pooled (float): Share of tr(M) that the mean of the gradients over
            the tokens of a picture has: 1 where nothing but the mean is read,
            as before a global average pooling, so that noise with the mean 0
            costs nothing; 1 / T where tokens are read independently.
        log_w (float): Mean of the log sensitivity of the tokens, nats; see
            :mod:`mmfeatjnd.functional.sensitivity`.
        log_w_map (Tensor): Its mean over the pictures on a fixed grid: (h, w),
            (n,) of token sequences, (1,) of vectors.
        mean (Tensor): (C,), of the feature.
        std (Tensor): (C,), standard deviation of each channel.
        covariance (Tensor): (C, C), of the feature.
        metric (Tensor): (C, C), M = E[g g^T], nats per square of a feature.
        frequencies (FrequencyMetric, optional): The same by frequency; of a
            sequence, of its tokens on their grid, see
            :func:`mmfeatjnd.functional.to_maps`.
        rest (FrequencyMetric, optional): Of the tokens before the grid.
    """
    tokens: float
    elements_per_pixel: float
    pooled: float
    log_w: float
    log_w_map: Tensor
    mean: Tensor
    std: Tensor
    covariance: Tensor
    metric: Tensor
    frequencies: Optional[FrequencyMetric] = None
    rest: Optional[FrequencyMetric] = None

    @property
    def channels(self) -> int:
        """int: Number C of channels."""
        return len(self.mean)


class TaskMetric(NamedTuple):
    """The task metric of a split of a host.

    Attributes:
        levels (dict[int, LevelMetric]): By their index; without those that
            nothing reads.
        split (str): The split point.
        configured (tuple[int]): Levels that were asked for, read or not.
        host_hash (str): Of the host's weights, see :func:`host_hash`.
        images (int): Number of pictures.
        draws (int): Draws of the gradient for each picture.
        seed (int): Seed of the choice of pictures, and of the draws.
        version (str): That of mmfeatjnd.
    """
    levels: Dict[int, LevelMetric]
    split: str
    configured: Tuple[int, ...]
    host_hash: str
    images: int
    draws: int
    seed: int
    version: str = __version__


#: Fields of a level with fields of their own.
_NESTED = ('frequencies', 'rest')


def _parts(level: tuple) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
    """Its tensors, and its numbers."""
    fields = {k: v for k, v in level._asdict().items() if k not in _NESTED}
    tensors = {k: v for k, v in fields.items() if isinstance(v, Tensor)}
    return tensors, {k: v for k, v in fields.items() if k not in tensors}


def save_metric(metric: TaskMetric, path: Union[str, Path]) -> None:
    """Write a task metric.

    The file is a :class:`mmfeatjnd.models.tensor_file.FileKind`. Its tensors
    are named ``LEVEL.FIELD``,
    ``LEVEL.frequencies.FIELD`` and ``LEVEL.rest.FIELD``; the numbers are in
    the metadata, as JSON.

    Args:
        metric (TaskMetric): Its tensors are on any device.
        path (str | Path): The file, written atomically.

    Raises:
        CheckpointError: A value is NaN or infinite.
        WriteError: The file cannot be written.

    Example:
        >>> save_metric(metric, 'metric.safetensors')
        >>> load_metric('metric.safetensors').split == metric.split
        True
    """
    tensors: Dict[str, Tensor] = {}
    about = dict(metric._asdict(), levels={})
    for index, level in metric.levels.items():
        found, about['levels'][index] = _parts(level)
        tensors.update({f'{index}.{k}': v for k, v in found.items()})
        for name in _NESTED:
            nested = getattr(level, name)
            if nested is None:
                continue
            found, numbers = _parts(nested)
            about['levels'][index][name] = numbers
            tensors.update(
                {f'{index}.{name}.{k}': v for k, v in found.items()})
    tensors = {
        k: v.detach().float().cpu().contiguous() for k, v in tensors.items()
    }
    _KIND.write(path, tensors, about, 'the metric')


def load_metric(path: Union[str, Path],
                model: Optional[nn.Module] = None,
                split: Optional[str] = None,
                levels: Optional[Sequence[int]] = None) -> TaskMetric:
    """Read a task metric, for the host and the split that it belongs to.

    Args:
        path (str | Path): A file of :func:`save_metric`.
        model (nn.Module, optional): The host, its weights loaded, with a
            FeatJND neck or plain. Defaults to None: of any host.
        split (str, optional): The split wanted. Defaults to None: that of the
            model's FeatJND neck, or any.
        levels (Sequence[int], optional): Levels that must be known. Defaults
            to None: those of the model's FeatJND neck, or any.

    Returns:
        TaskMetric: On the CPU.

    Raises:
        CheckpointError: The file holds no metric, has another version of the
            format, or belongs to another host, split or other levels.

    Example:
        >>> save_metric(metric, 'metric.safetensors')
        >>> load_metric('metric.safetensors', split='nowhere')
        Traceback (most recent call last):
        mmfeatjnd.models.hosts.CheckpointError: metric.safetensors is of \
split='backbone', but split='nowhere' is wanted. Estimate it again there.
    """
    metric = _assembled(path, *_KIND.read(path))
    neck = None
    if model is not None:
        model = unwrapped(model)
        if any(isinstance(m, FeatJNDNeck) for m in model.modules()):
            neck = find_neck(model)
    if neck is not None:
        split = neck.split if split is None else split
        levels = neck.levels if levels is None else levels
    if split is not None and ALIASES.get(split, split) != metric.split:
        raise CheckpointError(
            f"{path} is of split='{metric.split}', but split='{split}' is "
            'wanted. Estimate it again there.')
    if unknown := sorted(set(levels or ()) - set(metric.configured)):
        raise CheckpointError(
            f'{path} is of levels={list(metric.configured)}, but '
            f'level {unknown[0]} is wanted, too. Estimate it again with it.')
    if model is not None and host_hash(model) != metric.host_hash:
        raise CheckpointError(
            f'{path} is of another host checkpoint (hash '
            f'{metric.host_hash[:8]}, but the loaded host has '
            f'{host_hash(model)[:8]}). Load the checkpoint that it was '
            'estimated of, or estimate it again.')
    return metric


def _assembled(path: object, about: dict,
               tensors: Dict[str, Tensor]) -> TaskMetric:
    """The metric of what a file holds."""

    def under(prefix: str) -> Dict[str, Tensor]:
        return {
            k[len(prefix):]: v
            for k, v in tensors.items()
            if k.startswith(prefix) and '.' not in k[len(prefix):]
        }

    levels = {}
    try:
        for index, numbers in about['levels'].items():
            numbers = dict(numbers)
            nested = {
                name: FrequencyMetric(
                    **numbers.pop(name), **under(f'{index}.{name}.'))
                for name in _NESTED if name in numbers
            }
            levels[int(index)] = LevelMetric(
                **numbers, **under(f'{index}.'), **nested)
        fields = {k: about[k] for k in TaskMetric._fields}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{path} is no whole metric file ({error}). {_MAKE}') from error
    return TaskMetric(**dict(
        fields, levels=levels, configured=tuple(fields['configured'])))
