"""The file that takes one image's features from one machine to another.

Layout, all numbers little-endian::

    'FJNF' | version u8 | bytes of the header u32 | bytes of the stream u32
    header: JSON, deflated
    stream: what encode_image wrote
    CRC-32 of everything before, u32

The header says what the part of a host after the split needs beside the
features: the meta information of the image, and the shapes of what the part
before the split returns. JSON has neither tuples nor arrays; they are objects
with one key, see :data:`_TAGS`.
"""
import json
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, Union

import numpy as np
import torch

from .bitstream import MAX_ELEMENTS, BitstreamError, describe
from .entropy_coder import check_seal, seal

MAGIC = b'FJNF'
VERSION = 1
SUFFIX = '.fjnd'
#: A header larger than this, deflated or not, is refused.
MAX_HEADER = 1 << 20
_FIXED = struct.Struct('<4sBII')
_TAGS = ('$tuple', '$array', '$tensor', '$blank')


class FeatureFile(NamedTuple):
    """The content of a file.

    Attributes:
        split (str): Name of the split.
        levels (tuple[int]): The levels that the stream holds, in its order.
        strides (tuple[tuple[int]]): Of the features on the sending side; the
            layout decides the last bit of what the host computes.
        host (str): First 16 digits of :func:`mmfeatjnd.apis.host_hash`.
        metainfo (dict): Of the host's data sample.
        inputs (Tensor): Shape and dtype of the host's input, (1, 3, H, W), on
            the meta device.
        outputs (dict[str, list]): What the modules before the split returned,
            by name and in order, see :class:`mmfeatjnd.models.Skeleton`.
        stream (bytes): What :func:`mmfeatjnd.coding.encode_image` returned.
    """
    split: str
    levels: Tuple[int, ...]
    strides: Tuple[Tuple[int, ...], ...]
    host: str
    metainfo: Dict[str, Any]
    inputs: torch.Tensor
    outputs: Dict[str, List[Any]]
    stream: bytes


# ------------------------------------------------------------------- values
def _to_json(value: Any, where: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_to_json(v, where) for v in value]
    if kind in (tuple, torch.Size):
        return {'$tuple': [_to_json(v, where) for v in value]}
    if kind is dict and all(
            type(k) is str and not k.startswith('$') for k in value):
        return {k: _to_json(v, f'{where}.{k}') for k, v in value.items()}
    if isinstance(value, torch.Tensor) and value.is_meta:
        return {'$blank': [_dtype_name(value.dtype), *value.shape]}
    tag = '$tensor' if isinstance(value, torch.Tensor) else '$array'
    array = value.numpy() if tag == '$tensor' else value
    if isinstance(array, (np.ndarray, np.generic)) and \
            array.dtype.kind in 'biuf':
        return {
            tag: [array.dtype.name,
                  list(array.shape),
                  array.ravel().tolist()]
        }
    raise TypeError(f'{where} holds a {kind.__name__}, which a feature file '
                    'cannot hold: it takes numbers, strings, lists, tuples, '
                    'dicts and arrays of numbers')


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _array(name: str, shape: List[int], values: List) -> np.ndarray:
    dtype = np.dtype(str(name))
    if dtype.kind not in 'biuf':
        raise ValueError(f'dtype {name}')
    return np.array(values, dtype).reshape(shape)


def _blank(name: str, *shape: int) -> torch.Tensor:
    dtype = getattr(torch, str(name))
    if not dtype.is_floating_point or math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f'a tensor of shape {shape} and dtype {name}')
    return torch.empty(shape, dtype=dtype, device='meta')


_READERS: Dict[str, Callable] = {
    '$tuple': lambda *items: items,
    # a scalar comes back as a scalar
    '$array': lambda *args: _array(*args)[()],
    '$tensor': lambda *args: torch.from_numpy(_array(*args)),
    '$blank': _blank,
}


def _from_json(value: dict) -> Any:
    """Hook of the JSON reader: what stands for a tagged object."""
    tag, = value if len(value) == 1 else (None, )
    return _READERS[tag](*value[tag]) if tag in _READERS else value


# --------------------------------------------------------------------- file
def pack(content: FeatureFile) -> bytes:
    """The bytes of a file.

    Args:
        content (FeatureFile): The content.

    Returns:
        bytes: :func:`unpack` returns the same content.

    Raises:
        TypeError: The meta information or an output cannot be written.
    """
    fields = content._asdict()
    stream = fields.pop('stream')
    fields = {k: _to_json(v, k) for k, v in fields.items()}
    header = zlib.compress(
        json.dumps(fields, separators=(',', ':')).encode(), 9)
    data = _FIXED.pack(MAGIC, VERSION, len(header), len(stream))
    return seal(data + header + stream)


def _check_head(head: bytes, size: int) -> Tuple[int, int]:
    """Bytes of header and stream, from the first bytes and the size."""
    if head[:4] != MAGIC[:len(head)] or not head:
        raise BitstreamError('not a feature file: it does not begin with '
                             f'{MAGIC.decode()}')
    if len(head) < _FIXED.size:
        raise BitstreamError('truncated: the header is incomplete')
    _, version, header, stream = _FIXED.unpack(head)
    if version != VERSION:
        raise BitstreamError(f'feature file version {version}, but this '
                             f'mmfeatjnd reads version {VERSION}')
    if header > MAX_HEADER:
        raise BitstreamError(f'oversized: it announces a header of {header} '
                             f'bytes, but at most {MAX_HEADER} are read')
    announced = _FIXED.size + header + stream + 4
    if size != announced:
        kind = 'truncated' if size < announced else 'corrupted'
        raise BitstreamError(f'{kind}: {announced} bytes are announced, but '
                             f'there are {size}')
    return header, stream


def unpack(data: bytes, max_elements: int = MAX_ELEMENTS) -> FeatureFile:
    """Check the bytes of a file, and read all but the features.

    Args:
        data (bytes): What :func:`pack` returned.
        max_elements (int): Refuse streams with more elements. Defaults to
            2^26.

    Returns:
        FeatureFile: The content.

    Raises:
        BitstreamError: Foreign, truncated, corrupted or oversized.
    """
    header, stream = _check_head(data[:_FIXED.size], len(data))
    check_seal(data)
    start = _FIXED.size + header
    content = FeatureFile(
        **_read_header(data[_FIXED.size:start]),
        stream=data[start:start + stream])
    levels = describe(content.stream, max_elements)
    if not len(levels) == len(content.levels) == len(content.strides):
        raise BitstreamError(f'corrupted: {len(content.levels)} levels are '
                             f'announced, but there are {len(levels)}')
    return content


def _read_header(header: bytes) -> dict:
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(header, MAX_HEADER)
        if not inflate.eof:
            raise ValueError('too long')
        fields = json.loads(text, object_hook=_from_json)
        kinds = dict(
            split=str,
            levels=tuple,
            strides=tuple,
            host=str,
            metainfo=dict,
            inputs=torch.Tensor,
            outputs=dict)
        if fields.keys() != kinds.keys():
            raise ValueError('fields')
        for name, kind in kinds.items():
            if not isinstance(fields[name], kind):
                raise ValueError(name)
        if not all(isinstance(x, list) for x in fields['outputs'].values()):
            raise ValueError('outputs')
        return fields
    # whatever is wrong inside, with a checksum that fits
    except (zlib.error, ValueError, TypeError, AttributeError, KeyError,
            IndexError, OverflowError, RuntimeError) as error:
        raise BitstreamError('corrupted: the header cannot be read '
                             f'({error})') from error


def read(path: Union[str, Path],
         max_elements: int = MAX_ELEMENTS) -> FeatureFile:
    """:func:`unpack` a file, whose size is checked before it is read.

    Args:
        path (str | Path): The file.
        max_elements (int): See :func:`unpack`. Defaults to 2^26.

    Returns:
        FeatureFile: The content.

    Raises:
        BitstreamError: See :func:`unpack`.
        OSError: The file cannot be opened.
    """
    with open(path, 'rb') as file:
        head = file.read(_FIXED.size)
        header, stream = _check_head(head, os.fstat(file.fileno()).st_size)
        data = head + file.read(header + stream + 4)
    return unpack(data, max_elements)
