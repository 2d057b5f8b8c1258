"""Plans of a codec: what sender and receiver exchange once.

A plan is made of training pictures, by :func:`mmfeatjnd.apis.make_plan`: of
every level the components in which it is quantized, and the scale of each of
them for the entropy coder. An image then sends its size, its step and its
symbols.
"""
import hashlib
import json
import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mmfeatjnd.functional import (
    EntropyModel,
    Transform,
    frequency_groups,
    from_components,
    from_map,
    make_transform,
    to_components,
    to_map,
)
from mmfeatjnd.utils import ConfigError, atomic_path, unwrapped
from mmfeatjnd.version import __version__
from .estimator_file import host_hash
from .hosts import CheckpointError

_FORMAT = 'mmfeatjnd.plan'
#: Of the file; raised where older readers would take it for something else.
FORMAT_VERSION = 1
_KEY = 'mmfeatjnd'  # one entry: several have no fixed order in the file
_MAKE = 'Make one with tools/make_plan.py.'
#: Gains lie on a grid of eighths of an octave.
_GAIN_GRID = 8


class PartPlan(NamedTuple):
    """How a map is coded: a level, or the tokens before the grid of a
    sequence. Tensors are those of the file.

    Attributes:
        block (int): Side of a block, tokens.
        grouping (str): Which frequencies share a basis, see
            :func:`mmfeatjnd.functional.frequency_groups`.
        mean (Tensor): (C,), float32, of the lowest frequency.
        basis (Tensor): (G, C, C), int8, in units of ``row``.
        row (Tensor): (G, C), float32.
        gain (Tensor): (F, C), int8, eighths of an octave.
        scale (Tensor): (F, C), int16, quarter octaves of the scale of each
            component.
        centre (Tensor): (F, C), int16, quarters of the scale.
        rectified (bool): No component is below 0.
    """
    block: int
    grouping: str
    mean: Tensor
    basis: Tensor
    row: Tensor
    gain: Tensor
    scale: Tensor
    centre: Tensor
    rectified: bool = False

    @property
    def transform(self) -> Transform:
        """Transform: What the tensors of the file make, on the CPU."""
        frequencies, channels = self.gain.shape
        mean = torch.zeros(frequencies, channels)
        mean[0] = self.mean
        return make_transform(
            self.block, mean, self.basis.float() * self.row[..., None],
            frequency_groups(self.block, self.grouping),
            (self.gain.float() / _GAIN_GRID).exp2())

    @property
    def model(self) -> EntropyModel:
        """EntropyModel: Of the components, for any image."""
        return EntropyModel(
            *(x.flatten().int()[None] for x in (self.scale, self.centre)),
            torch.tensor([[int(self.rectified)]], dtype=torch.int32))


def rounded_part(transform: Transform, grouping: str) -> PartPlan:
    """A transform as a file holds it, with scales that are not known yet.

    Args:
        transform (Transform): Its mean above the lowest frequency is left
            out.
        grouping (str): That of its frequencies.

    Returns:
        PartPlan: With rows of the basis in 8 bits.
    """
    basis = transform.basis.double()
    row = (basis.abs().amax(-1) / 127).float()
    whole = (basis / row.double()[..., None]).round()
    gain = (_GAIN_GRID * transform.gain.double().log2()).round()
    zero = torch.zeros_like(transform.gain, dtype=torch.int16)
    return PartPlan(transform.block, grouping, transform.mean[0].clone(),
                    whole.to(torch.int8), row,
                    gain.clamp(-128, 127).to(torch.int8), zero, zero.clone())


class CodecPlan(NamedTuple):
    """A plan of a split of a host.

    Attributes:
        parts (dict[int, tuple[PartPlan, ...]]): By level: its map, and the
            tokens before it, if there are any.
        code (str): Name of the code, such as 'task'.
        split (str): The split point.
        configured (tuple[int]): Levels that were asked for, read or not.
        host_hash (str): Of the host's weights.
        images (int): Number of pictures that it was made of.
        seed (int): Seed of their choice.
        curve (tuple[tuple[float, float], ...]): Steps, and the nats of an
            image that each of them cost on these pictures, rising.
        block_power (float): Power of the sensitivity of a block that steps
            are divided by; 0: they do not vary.
        image_power (float): The same of an image.
        image_level (float): Mean of log2 of what ``image_power`` is of.
        version (str): That of mmfeatjnd.
    """
    parts: Dict[int, Tuple[PartPlan, ...]]
    code: str
    split: str
    configured: Tuple[int, ...]
    host_hash: str
    images: int
    seed: int
    curve: Tuple[Tuple[float, float], ...] = ()
    block_power: float = 0.0
    image_power: float = 0.0
    image_level: float = 0.0
    version: str = __version__

    @property
    def digest(self) -> bytes:
        """bytes: SHA-256 of what an image's bytes depend on."""
        found = hashlib.sha256()
        for index, parts in sorted(self.parts.items()):
            for part in parts:
                found.update(repr((index, part.block, part.grouping,
                                   part.rectified)).encode())
                for x in part:
                    if isinstance(x, Tensor):
                        found.update(x.contiguous().numpy().tobytes())
        found.update(self.host_hash.encode())
        return found.digest()


class LevelCode:
    """The code of one level on a device.

    Args:
        parts (Sequence[PartPlan]): Those of the level.
        device (torch.device): Where the features are.
    """

    def __init__(self, parts: Tuple[PartPlan, ...],
                 device: torch.device) -> None:
        self.transforms = [p.transform.to(device) for p in parts]
        self.models = [
            EntropyModel(*(x.to(device) for x in p.model)) for p in parts
        ]

    def components(self, feature: Tensor) -> List[Tensor]:
        """Of every part (B, K, h, w), see
        :func:`mmfeatjnd.functional.to_components`.

        Args:
            feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        """
        maps = [x for x in to_map(feature) if x is not None]
        if len(maps) != len(self.transforms):
            raise ValueError(
                f'the plan has {len(self.transforms)} parts of this level, '
                f'but a feature of shape {tuple(feature.shape)} has '
                f'{len(maps)}: was it made for other inputs?')
        return [to_components(x, t) for x, t in zip(maps, self.transforms)]

    def feature(self, components: List[Tensor], like: Tensor) -> Tensor:
        """The reverse, float32.

        Args:
            components (list[Tensor]): Of every part.
            like (Tensor): A tensor of the shape of the feature.
        """
        maps = [x for x in to_map(like) if x is not None]
        found = [
            from_components(z, t, x.shape[2:])
            for z, t, x in zip(components, self.transforms, maps)
        ]
        return from_map(found[0], *found[1:] or [None], like)


def step_for(plan: CodecPlan, tolerance: float) -> float:
    """The step at which an image costs so many nats, by the plan's curve.

    Args:
        plan (CodecPlan): A plan with a curve.
        tolerance (float): Nats of an image, a mean over images.

    Returns:
        float: The step.

    Raises:
        ConfigError: The curve does not reach so far.
    """
    steps, nats = np.log(np.array(plan.curve).reshape(-1, 2).T)
    if not len(steps) or not nats[0] <= math.log(tolerance) <= nats[-1]:
        known = f'from {math.exp(nats[0]):.3g} to {math.exp(nats[-1]):.3g}' \
            if len(steps) else 'nothing'
        raise ConfigError(
            f'tolerance={tolerance:g} nats lies beyond what the plan has '
            f'measured: {known}. Make it with other `nats`.')
    return float(np.exp(np.interp(math.log(tolerance), nats, steps)))


# ----------------------------------------------------------------------- file
def save_plan(plan: CodecPlan, path: Union[str, Path]) -> None:
    """Write a plan, in the format of :func:`mmfeatjnd.models.metric_file.\
save_metric`.

    Args:
        plan (CodecPlan): The plan.
        path (str | Path): The file, written atomically.

    Raises:
        CheckpointError: A value is NaN or infinite.
        WriteError: The file cannot be written.

    Example:
        >>> save_plan(plan, 'plan.safetensors')
        >>> load_plan('plan.safetensors').digest == plan.digest
        True
    """
    tensors: Dict[str, Tensor] = {}
    about = dict(plan._asdict(), format=_FORMAT,
                 format_version=FORMAT_VERSION, parts={})
    for index, parts in plan.parts.items():
        about['parts'][index] = []
        for i, part in enumerate(parts):
            fields = part._asdict()
            about['parts'][index].append({
                k: v for k, v in fields.items() if not isinstance(v, Tensor)
            })
            tensors.update({
                f'{index}.{i}.{k}': v.contiguous()
                for k, v in fields.items() if isinstance(v, Tensor)
            })
    _check_values(tensors, 'the plan')
    with atomic_path(str(path)) as partial:
        Path(partial).write_bytes(save(tensors, {_KEY: json.dumps(about)}))


def _check_values(tensors: Dict[str, Tensor], source: object) -> None:
    broken = [k for k, v in tensors.items()
              if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{source}: NaN or infinite values in {broken[0]!r}. Check the '
            'checkpoint of the host and its input.')


def load_plan(path: Union[str, Path],
              model: Optional[nn.Module] = None,
              split: Optional[str] = None) -> CodecPlan:
    """Read a plan, for the host and the split that it belongs to.

    Args:
        path (str | Path): A file of :func:`save_plan`.
        model (nn.Module, optional): The host, its weights loaded. Defaults to
            None: of any host.
        split (str, optional): The split wanted. Defaults to None: any.

    Returns:
        CodecPlan: On the CPU.

    Raises:
        CheckpointError: The file holds no plan, has another version of the
            format, or belongs to another host or split.

    Example:
        >>> save_plan(plan, 'plan.safetensors')
        >>> load_plan('plan.safetensors', split='nowhere')
        Traceback (most recent call last):
        mmfeatjnd.models.hosts.CheckpointError: plan.safetensors is of \
split='backbone', but split='nowhere' is wanted. Make it again there.
    """
    try:
        with safe_open(str(path), 'pt') as file:
            about = json.loads((file.metadata() or {}).get(_KEY, '{}'))
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f'{path} is no plan: {error}. {_MAKE}') from error
    if not isinstance(about, dict) or about.get('format') != _FORMAT:
        raise CheckpointError(f'{path} is no plan. {_MAKE}')
    version = about.get('format_version')
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f'{path} has version {version} of the format (mmfeatjnd '
            f'{about.get("version")}), but this mmfeatjnd ({__version__}) '
            f'reads version {FORMAT_VERSION}. {_MAKE}')
    _check_values(tensors, path)
    plan = _assembled(path, about, tensors)
    if split is not None and split != plan.split:
        raise CheckpointError(
            f"{path} is of split='{plan.split}', but split='{split}' is "
            'wanted. Make it again there.')
    if model is not None:
        check_plan_host(plan, model, path)
    return plan


def check_plan_host(plan: CodecPlan, model: nn.Module, path: object) -> None:
    """Raise a :class:`CheckpointError` unless a plan is of this host."""
    found = host_hash(unwrapped(model))
    if found != plan.host_hash:
        raise CheckpointError(
            f'{path} is of another host checkpoint (hash '
            f'{plan.host_hash[:8]}, but the loaded host has {found[:8]}). '
            'Load the checkpoint that it was made of, or make it again.')


def _assembled(path: object, about: Dict[str, Any],
               tensors: Dict[str, Tensor]) -> CodecPlan:
    """The plan of what a file holds."""
    try:
        parts = {}
        for index, found in about['parts'].items():
            parts[int(index)] = tuple(
                PartPlan(**numbers, **{
                    k.rpartition('.')[2]: v for k, v in tensors.items()
                    if k.startswith(f'{index}.{i}.')
                }) for i, numbers in enumerate(found))
        fields = {k: about[k] for k in CodecPlan._fields}
        fields.update(
            parts=parts,
            configured=tuple(fields['configured']),
            curve=tuple(map(tuple, fields['curve'])))
        plan = CodecPlan(**fields)
        for every in parts.values():
            for part in every:
                part.transform  # its shapes fit, and it has an inverse
        return plan
    except (AttributeError, KeyError, TypeError, ValueError, IndexError,
            RuntimeError) as error:
        raise CheckpointError(
            f'{path} is no whole plan ({error}). {_MAKE}') from error
