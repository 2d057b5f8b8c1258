"""The file that takes one image's features from one machine to another.

Layout, all numbers little-endian::

    'FJNF' | version u8 | bytes of the header u32 | bytes of the stream u32
    header: JSON, deflated
    stream: what encode_image wrote
    CRC-32 of everything before, u32

The header says what the part of a host after the split needs beside the
features: the meta information of the image, and the shapes of what the part
before the split returns. JSON has neither tuples nor arrays; they are objects
with one key, see :data:`_TAGS`. The meta information is sorted by name: a
host keeps the names in a set, whose order differs from process to process.
"""
import json
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

import numpy as np
import torch

from .bitstream import read_header
from .body import MAX_ELEMENTS
from .entropy_coder import BitstreamError, check_seal, seal

MAGIC = b'FJNF'
VERSION = 1
SUFFIX = '.fjnd'
#: A header larger than this, deflated or not, is refused.
MAX_HEADER = 1 << 20
_FIXED = struct.Struct('<4sBII')
_TAGS = ('$tuple', '$array', '$tensor', '$blank')
_FLOATS = {
    str(dtype).removeprefix('torch.'): dtype
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


class FeatureFile(NamedTuple):
    """The content of a file.

    Attributes:
        split (str): Name of the split.
        levels (tuple[int]): The levels that the stream holds, in its order.
        strides (tuple[tuple[int]]): Strides of the features on the sending
            side; the layout decides the last bit of what the host computes.
        host (str): First 16 digits of :func:`mmfeatjnd.apis.host_hash`.
        metainfo (dict): That of the host's data sample, with ``img_path``.
        inputs (Tensor): Shape and dtype of the host's input, (1, 3, H, W), on
            the meta device.
        outputs (dict[str, list]): What the modules before the split returned,
            by name and in order, see :class:`mmfeatjnd.models.PrefixShapes`.
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
        name = str(value.dtype).removeprefix('torch.')
        if name not in _FLOATS:
            raise TypeError(f'{where} holds a tensor of {name} without '
                            f'values: only {", ".join(_FLOATS)} are left out')
        return {'$blank': [name, *value.shape]}
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


def _array(name: str, shape: List[int], values: List) -> np.ndarray:
    dtype = np.dtype(str(name))
    if dtype.kind not in 'biuf':
        raise ValueError(f'dtype {name}')
    return np.array(values, dtype).reshape(shape)


def _blank(name: str, *shape: int) -> torch.Tensor:
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f'a tensor of shape {shape}')
    return torch.empty(shape, dtype=_FLOATS[name], device='meta')


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


# ------------------------------------------------------------------- checks
def check_names(metainfo: Dict[str, Any],
                sample_type: Optional[type] = None) -> None:
    """Raise unless every name can become an attribute of a data sample.

    A data sample takes its meta information as attributes, so a file could
    replace its class or its methods.

    Args:
        metainfo (dict): The meta information.
        sample_type (type, optional): Class of the data sample; what it
            defines itself, such as ``pred_instances``, is no name either.
            Defaults to None: what all data samples have.

    Raises:
        ValueError: A name is reserved.
    """
    if sample_type is None:
        from mmengine.structures import BaseDataElement as sample_type
    for name in metainfo:
        if name.startswith('_') or hasattr(sample_type, name):
            raise ValueError(f"the meta information holds '{name}', which a "
                             'data sample uses itself: use another name')


def _is_ints(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int for n in value)


def _has_blank(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(_has_blank(v) for v in value)
    return isinstance(value, torch.Tensor) and value.is_meta


def _check_fields(fields: Dict[str, Any]) -> None:
    """Raise a ValueError unless these can be the fields of a file."""
    expected = set(FeatureFile._fields) - {'stream'}
    if fields.keys() != expected:
        raise ValueError(f'the fields must be {", ".join(sorted(expected))}')
    split, host, metainfo, outputs = (
        fields[k] for k in ('split', 'host', 'metainfo', 'outputs'))
    # printed by the tools, so nothing that a terminal obeys
    if not isinstance(split, str) or not split.isprintable():
        raise ValueError(f'split {split!r:.99} is no name of a module')
    if not isinstance(host, str) or not re.fullmatch('[0-9a-f]+', host):
        raise ValueError(f'host {host!r:.99} is no hash')
    if not _is_ints(fields['levels']):
        raise ValueError('levels must be a tuple of integers')
    if not isinstance(fields['strides'], tuple) or not all(
            map(_is_ints, fields['strides'])):
        raise ValueError('strides must be tuples of integers')
    inputs = fields['inputs']
    if not isinstance(inputs, torch.Tensor) or not inputs.is_meta:
        raise ValueError('inputs must be a tensor without values')
    if not isinstance(outputs, dict) or not all(
            k.isprintable() and isinstance(v, list)
            for k, v in outputs.items()):
        raise ValueError('outputs must be lists by the names of modules')
    if not isinstance(metainfo, dict) or _has_blank(metainfo):
        raise ValueError('metainfo must be a dict without blank tensors')
    if not isinstance(metainfo.get('img_path'), str):
        raise ValueError('metainfo must hold img_path, a string')
    check_names(metainfo)


# --------------------------------------------------------------------- file
def pack(content: FeatureFile) -> bytes:
    """The bytes of a file.

    Args:
        content (FeatureFile): The content.

    Returns:
        bytes: :func:`unpack` returns the same content.

    Raises:
        TypeError: The meta information or an output cannot be written.
        ValueError: :func:`unpack` would refuse the fields.
    """
    fields = content._asdict()
    stream = fields.pop('stream')
    values = {k: _to_json(v, k) for k, v in fields.items()}
    _check_fields(fields)
    values['metainfo'] = dict(sorted(values['metainfo'].items()))
    text = json.dumps(values, separators=(',', ':'))
    if len(text) >= MAX_HEADER:
        raise ValueError(f'the header has {len(text)} bytes, but less than '
                         f'{MAX_HEADER} are read: is there an array in the '
                         'meta information?')
    header = zlib.compress(text.encode(), 9)
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
    """Content of a file whose bytes are checked; the features stay coded.

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
    levels = read_header(content.stream, max_elements)
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
        _check_fields(fields)
        return fields
    # whatever is wrong inside, with a checksum that fits
    except (zlib.error, ValueError, TypeError, AttributeError, KeyError,
            IndexError, OverflowError, RuntimeError) as error:
        raise BitstreamError('corrupted: the header cannot be read '
                             f'({str(error)!r:.200})') from error


def read(path: Union[str, Path],
         max_elements: int = MAX_ELEMENTS) -> FeatureFile:
    """Content of a file, whose size is checked before it is read; see
    :func:`unpack`.

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
