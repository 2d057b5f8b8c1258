"""Random numbers that belong to an image, not to a batch.

A counter-based generator: the value at element ``i`` of an image is a hash of
(key of the image, i). The noise of an image is therefore the same whatever
the batch size, the order, the number of processes and the device, and no
global random state is read or changed. The hash is the finalizer of
SplitMix64 (Steele, Lea and Flood, 2014), twice.
"""
import hashlib
import math
from typing import Optional, Sequence, Union

import torch
from torch import Tensor

from .layout import from_tokens, to_tokens

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as signed 64 bit
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)
# any odd number but that of the streams, which it would shift
_VIEW = 0xD1B54A32D192ED03 - (1 << 64)


def _key(identity: Union[int, str], seed: int) -> int:
    # a file's name need not be UTF-8
    name = f'{seed}:{identity}'.encode(errors='surrogateescape')
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return int.from_bytes(digest, 'little', signed=True)


def image_keys(ids: Sequence[Union[int, str]],
               seed: int = 0,
               device: Union[str, torch.device] = 'cpu') -> Tensor:
    """Generator keys of images, from their identities.

    Args:
        ids (Sequence[int | str]): One identity an image, e.g. its COCO id.
        seed (int): Another seed gives independent noise. Defaults to 0.
        device (str | torch.device): Where the keys live. Defaults to 'cpu'.

    Returns:
        Tensor: (B,), int64.

    Example:
        >>> keys = image_keys(['a.png', 7])
        >>> keys.shape, keys.dtype
        (torch.Size([2]), torch.int64)
        >>> bool((keys == image_keys(['a.png', 7], seed=1)).any())
        False
    """
    keys = [_key(i, seed) for i in ids]
    # a copy from the host that the host does not wait for
    return torch.tensor(
        keys, dtype=torch.int64).to(device, non_blocking=True)


def step_seed(step: Optional[int], call: int = 0, seed: int = 0) -> int:
    """Seed of what is drawn in one step of a training.

    It depends on nothing else, so a resumed training draws what the
    uninterrupted one does.

    Args:
        step (int | None): Number of the step; None where nobody counts.
        call (int): Number of the draw within the step. Defaults to 0.
        seed (int): Another seed gives independent draws. Defaults to 0.

    Returns:
        int: In [0, 2^63), for :func:`image_keys` or
        ``torch.manual_seed``.

    Example:
        >>> step_seed(7) == step_seed(7), step_seed(7) == step_seed(7, 1)
        (True, False)
    """
    return _key(f'{step}.{call}', seed) % (1 << 63)


def view_keys(keys: Tensor, views: Tensor) -> Tensor:
    """Keys of the views of images, such as windows or regions.

    Args:
        keys (Tensor): (R,), int64: the key of each view's image.
        views (Tensor): (R,), int64: the view's number within its image.

    Returns:
        Tensor: (R,), int64; view 0 has the key of its image.

    Example:
        >>> keys = image_keys(['a.png', 'a.png'])
        >>> view_keys(keys, torch.tensor([0, 1])) == keys
        tensor([ True, False])
    """
    return torch.where(views == 0, keys, _mix(keys + views * _VIEW))


def _wrap(x: int) -> int:
    """Modulo 2^64, as signed 64 bit: what a tensor's arithmetic does."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical, not arithmetic


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def _hash(keys: Tensor, numel: int, stream: int) -> Tensor:
    counter = torch.arange(1, numel + 1, device=keys.device) * _GOLDEN
    keys = _mix(keys + _wrap((2 * stream + 1) * _GOLDEN))
    return _mix(keys[:, None] + counter[None])  # (B, numel)


def _unit(bits: Tensor) -> Tensor:
    """23 bits to the open interval (0, 1), without rounding in float32."""
    return (bits.float() + 0.5) * 2.0**-23


def uniform_noise(keys: Tensor, shape: Sequence[int],
                  stream: int = 0) -> Tensor:
    """Uniform noise in (-1, 1).

    Args:
        keys (Tensor): (B,), int64, see :func:`image_keys`.
        shape (Sequence[int]): The shape of one image's noise.
        stream (int): Streams are independent, e.g. one for each level.
            Defaults to 0.

    Returns:
        Tensor: (B, *shape), float32, on the device of ``keys``.

    Example:
        >>> noise = uniform_noise(image_keys([1, 2]), (8, 4, 4))
        >>> noise.shape, bool((noise.abs() < 1).all())
        (torch.Size([2, 8, 4, 4]), True)
    """
    bits = _shift(_hash(keys, math.prod(shape), stream), 41)
    return (2 * _unit(bits) - 1).view(len(keys), *shape)


def gaussian_noise(keys: Tensor, shape: Sequence[int],
                   stream: int = 0) -> Tensor:
    """Standard normal noise by the Box-Muller transform.

    Args:
        keys (Tensor): (B,), int64, see :func:`image_keys`.
        shape (Sequence[int]): The shape of one image's noise.
        stream (int): Streams are independent. Defaults to 0.

    Returns:
        Tensor: (B, *shape), float32, on the device of ``keys``.

    Example:
        >>> noise = gaussian_noise(image_keys([1, 2]), (8, 4, 4))
        >>> noise.shape
        torch.Size([2, 8, 4, 4])
        >>> alone = gaussian_noise(image_keys([2]), (8, 4, 4))
        >>> torch.equal(noise[1:], alone)
        True
    """
    bits = _hash(keys, math.prod(shape), stream)
    radius = (-2 * _unit(_shift(bits, 41)).log()).sqrt()
    angle = 2 * math.pi * _unit(bits & 0x7FFFFF)
    return (radius * angle.cos()).view(len(keys), *shape)


def random_permutation(keys: Tensor, n: int, stream: int = 0) -> Tensor:
    """A uniform random permutation for each image.

    Args:
        keys (Tensor): (B,), int64, see :func:`image_keys`.
        n (int): Length of the permutation.
        stream (int): Streams are independent. Defaults to 0.

    Returns:
        Tensor: (B, n), int64, each row a permutation of 0 ... n - 1.

    Example:
        >>> order = random_permutation(image_keys([1, 2]), 5)
        >>> order.shape, order.sort(1).values[0]
        (torch.Size([2, 5]), tensor([0, 1, 2, 3, 4]))
    """
    return _hash(keys, n, stream).argsort(1)


#: Streams of permutations: the estimator's noise must not share numbers.
ORDER_STREAM = 1 << 20


def shuffle_tokens(x: Tensor, keys: Tensor, stream: int = 0) -> Tensor:
    """The feature with the tokens of each image permuted.

    Args:
        x (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        keys (Tensor): (B,), int64, see :func:`image_keys`.
        stream (int): Streams are independent. Defaults to 0.

    Returns:
        Tensor: The same shape.

    Example:
        >>> x = torch.arange(4.0).view(1, 4, 1)  # (B, N, C)
        >>> shuffle_tokens(x, image_keys([1])).flatten().sort().values
        tensor([0., 1., 2., 3.])
    """
    tokens = to_tokens(x)
    order = random_permutation(keys, tokens.size(1), stream + ORDER_STREAM)
    return from_tokens(
        tokens.gather(1, order[..., None].expand_as(tokens)), x)


def shuffle_channels(x: Tensor, keys: Tensor, stream: int = 0) -> Tensor:
    """The feature with the channels of each image permuted; arguments as in
    :func:`shuffle_tokens`.

    Example:
        >>> shuffle_channels(torch.zeros(2, 8, 4, 4), image_keys([1, 2])).shape
        torch.Size([2, 8, 4, 4])
    """
    tokens = to_tokens(x)
    order = random_permutation(keys, tokens.size(2), stream + ORDER_STREAM)
    return from_tokens(
        tokens.gather(2, order[:, None].expand_as(tokens)), x)
