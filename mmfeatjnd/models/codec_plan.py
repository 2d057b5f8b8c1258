"""Plans of a codec: what sender and receiver exchange once.

A plan is made of training pictures, by :func:`mmfeatjnd.apis.make_plan`: of
every level the components in which it is quantized, and the scale of each of
them for the entropy coder. An image then sends its size, its step and its
symbols.
"""
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from mmfeatjnd.functional import (
    EntropyModel,
    Transform,
    frequency_groups,
    from_components,
    from_maps,
    make_transform,
    to_components,
    to_maps,
)
from mmfeatjnd.utils import ConfigError, unwrapped
from mmfeatjnd.version import __version__
from .estimator_file import host_hash
from .hosts import CheckpointError
from .tensor_file import FileKind

_MAKE = 'Make one with tools/make_plan.py.'
FORMAT_VERSION = 2
_KIND = FileKind('mmfeatjnd.plan', FORMAT_VERSION, 'plan', _MAKE, _MAKE)
#: Fields of one byte a component.
_TABLES = ('gain', 'scale', 'centre')
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
        basis (Tensor): (G, C, C) integers of ``bits`` bits in units of
            ``row`` and ``column``, each row packed: uint8.
        row (Tensor): (G, C), float32.
        column (Tensor): (C,), float32, of all rows.
        gain (Tensor): (F, C), int8, eighths of an octave.
        scale (Tensor): (F, C), int8, quarter octaves of the scale of each
            component.
        centre (Tensor): (F, C), int8, quarters of the scale; (0, C): all 0.
        bits (int): Of an element of the basis.
        rectified (bool): No component is below 0.
    """
    block: int
    grouping: str
    mean: Tensor
    basis: Tensor
    row: Tensor
    column: Tensor
    gain: Tensor
    scale: Tensor
    centre: Tensor
    bits: int = 8
    rectified: bool = False

    @property
    def transform(self) -> Transform:
        """Transform: What the tensors of the file make, on the CPU."""
        frequencies, channels = self.gain.shape
        mean = torch.zeros(frequencies, channels)
        mean[0] = self.mean
        whole = _unpacked(self.basis, self.bits, channels)
        return make_transform(
            self.block, mean, whole * self.row[..., None] * self.column,
            frequency_groups(self.block, self.grouping),
            (self.gain.float() / _GAIN_GRID).exp2())

    @property
    def model(self) -> EntropyModel:
        """EntropyModel: Of the components, for any image."""
        centre = self.centre if len(self.centre) else self.scale * 0
        return EntropyModel(
            *(x.flatten().int()[None] for x in (self.scale, centre)),
            torch.tensor([[int(self.rectified)]], dtype=torch.int32))


def _packed(whole: Tensor, bits: int) -> Tensor:
    """Integers of so many bits with a sign, (..., C), one after the other."""
    values = (whole + 2**(bits - 1)).to(torch.uint8).numpy()
    single = np.unpackbits(values[..., None], -1)[..., -bits:]
    return torch.from_numpy(np.packbits(
        single.reshape(*values.shape[:-1], -1), -1))


def _unpacked(packed: Tensor, bits: int, size: int) -> Tensor:
    """The reverse."""
    single = np.unpackbits(packed.numpy(), -1, size * bits)
    single = single.reshape(*packed.shape[:-1], size, bits)
    padded = np.pad(single, [(0, 0)] * (single.ndim - 1) + [(8 - bits, 0)])
    values = torch.from_numpy(np.packbits(padded, -1)[..., 0])
    return values.float() - 2**(bits - 1)


def rounded_part(transform: Transform,
                 grouping: str,
                 bits: int = 8) -> PartPlan:
    """A transform as a file holds it, with scales that are not known yet.

    What is rounded is not the code, whose inverse is that of the rounded
    basis, but how well it fits the statistics.

    Args:
        transform (Transform): Its mean above the lowest frequency is left
            out.
        grouping (str): That of its frequencies.
        bits (int): Of an element of the basis, 2 to 8. Defaults to 8.

    Returns:
        PartPlan: What the file holds.
    """
    most = 2**(bits - 1) - 1
    basis = transform.basis.double()
    # channels of a small unit do not vanish beside the others
    column = basis.square().mean((0, 1)).sqrt().float()
    basis = basis / column.double()
    row = (basis.abs().amax(-1) / most).float()
    whole = (basis / row.double()[..., None]).round()
    gain = (_GAIN_GRID * transform.gain.double().log2()).round()
    zero = torch.zeros_like(transform.gain, dtype=torch.int8)
    return PartPlan(transform.block, grouping, transform.mean[0].clone(),
                    _packed(whole, bits), row, column,
                    gain.clamp(-128, 127).to(torch.int8), zero, zero[:0], bits)


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
                                   part.bits, part.rectified)).encode())
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
        maps = to_maps(feature)
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
        maps = [
            from_components(z, t, x.shape[2:])
            for z, t, x in zip(components, self.transforms, to_maps(like))
        ]
        return from_maps(maps, like)


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
    """Write a plan: a :class:`mmfeatjnd.models.tensor_file.FileKind`, whose
    tensors are named ``LEVEL.PART.FIELD``; tables of bytes are deflated.

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
    about = dict(plan._asdict(), parts={})
    for index, parts in plan.parts.items():
        about['parts'][index] = []
        for i, part in enumerate(parts):
            fields = part._asdict()
            about['parts'][index].append({
                k: v for k, v in fields.items() if not isinstance(v, Tensor)
            })
            tensors.update({
                f'{index}.{i}.{k}': _deflated(v) if k in _TABLES else
                v.contiguous()
                for k, v in fields.items() if isinstance(v, Tensor)
            })
    _KIND.write(path, tensors, about, 'the plan')


def load_plan(path: Union[str, Path]) -> CodecPlan:
    """Read a plan.

    Args:
        path (str | Path): A file of :func:`save_plan`.

    Returns:
        CodecPlan: On the CPU.

    Raises:
        CheckpointError: The file holds no plan, or has another version of
            the format.

    Example:
        >>> save_plan(plan, 'plan.safetensors')
        >>> load_plan('plan.safetensors').split
        'backbone'
    """
    return _assembled(path, *_KIND.read(path))


def check_plan_host(plan: CodecPlan, model: nn.Module, path: object) -> None:
    """Raise a :class:`CheckpointError` unless a plan is of this host."""
    found = host_hash(unwrapped(model))
    if found != plan.host_hash:
        raise CheckpointError(
            f'{path} is of another host checkpoint (hash '
            f'{plan.host_hash[:8]}, but the loaded host has {found[:8]}). '
            'Load the checkpoint that it was made of, or make it again.')


def _deflated(table: Tensor) -> Tensor:
    data = zlib.compress(table.contiguous().numpy().tobytes(), 9)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _inflated(data: Tensor, shape: Tuple[int, int]) -> Tensor:
    """A table, (F, C) or (0, C), of no more bytes than that."""
    raw = zlib.decompressobj().decompress(
        data.numpy().tobytes(), shape[0] * shape[1] + 1)
    table = np.frombuffer(raw, np.int8).reshape(-1, shape[1])
    if len(table) not in (0, shape[0]):
        raise ValueError(f'a table of {len(table)} x {shape[1]}, but '
                         f'{shape[0]} frequencies')
    return torch.from_numpy(table.copy())


def _part(numbers: Dict[str, Any], tensors: Dict[str, Tensor]) -> PartPlan:
    """A part of what a file holds of it."""
    shape = numbers['block']**2, len(tensors['mean'])
    tables = {k: _inflated(tensors.pop(k), shape) for k in _TABLES}
    return PartPlan(**numbers, **tensors, **tables)


def _assembled(path: object, about: Dict[str, Any],
               tensors: Dict[str, Tensor]) -> CodecPlan:
    """The plan of what a file holds."""
    try:
        parts = {}
        for index, found in about['parts'].items():
            parts[int(index)] = tuple(
                _part(numbers, {
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
            RuntimeError, zlib.error) as error:
        raise CheckpointError(
            f'{path} is no whole plan ({error}). {_MAKE}') from error
