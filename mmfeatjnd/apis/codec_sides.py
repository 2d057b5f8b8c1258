"""The two sides of a split host: what stops it there, what goes on."""
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Set

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from mmfeatjnd.functional import from_channels_first, to_channels_first
from mmfeatjnd.models import FeatJNDNeck, Run


class CodecError(ValueError):
    """An image, a file or a split that cannot be coded; the message says
    why."""


class SplitReached(Exception):
    """Ends a pass of the host where the features are known."""


class Sender:
    """Quantizes, and stops the host at the last level."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.strides: Dict[int, tuple] = {}

    def __call__(self, feature: Tensor, level: int) -> Tensor:
        value = self.run.apply(feature, level)
        neck = self.run.neck
        if level in neck.active_levels:
            layout = neck.layout_of(feature, level)
            self.strides[level] = to_channels_first(value, layout).stride()
        if len(self.strides) == len(neck.active_levels):
            raise SplitReached
        return value


class Receiver:
    """Returns the decoded features."""

    def __init__(self, neck: FeatJNDNeck, features: Dict[int, Tensor],
                 strides: Dict[int, tuple]) -> None:
        self.neck = neck
        self.features = features
        self.strides = strides
        self.used: Set[int] = set()

    def __call__(self, feature: Tensor, level: int) -> Tensor:
        if level not in self.features:  # nothing reads it
            return feature
        value = self.features[level]
        if level in self.used:
            raise RuntimeError(f'level {level} is asked for twice')
        self.used.add(level)
        layout = self.neck.layout_of(feature, level)
        whole = _whole(value,
                       to_channels_first(feature, layout).shape,
                       self.strides[level], level)
        return from_channels_first(whole, layout).to(feature.device)


def check_precision(host: torch.nn.Module, features: List[Tensor],
                    device: torch.device) -> None:
    """Raise if a host does not compute in the precision of the features.
    With autocast it takes all.

    Args:
        host (nn.Module): The host.
        features (list[Tensor]): The decoded features.
        device (torch.device): The host's.

    Raises:
        CodecError: It computes in another one.
    """
    if torch.is_autocast_enabled(device.type):
        return
    # what runs before the split says nothing: it is replayed from the file
    own = {p.dtype for p in host.parameters()}
    for feature in features:
        if feature.dtype not in own:
            sent, expected = (
                str(x).removeprefix('torch.')
                for x in (feature.dtype, next(iter(own))))
            raise CodecError(
                f'the features were sent as {sent}, but here the host '
                f'computes in {expected}: run both sides in one precision')


def _whole(value: Tensor, shape: torch.Size, stride: tuple,
           level: int) -> Tensor:
    """Decoded features in the shape and layout of the host's: sums depend on
    the layout in the last bit. The padding of a map is not sent, and is 0."""
    fits = value.shape == shape or (
        value.dim() == len(shape) == 4 and value.shape[:2] == shape[:2]
        and all(n <= m for n, m in zip(value.shape, shape)))
    if not fits:
        raise CodecError(
            f'level {level} of the file has shape {tuple(value.shape)}, '
            f'but the host expects {tuple(shape)}: the file is corrupted')
    last = sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    # an element of its own for each, and no more
    if not all(s > 0 for s in stride) or last != shape.numel() - 1:
        raise CodecError(f'corrupted: strides {stride} for {tuple(shape)}')
    whole = torch.empty_strided(shape, stride, dtype=value.dtype).zero_()
    whole[tuple(slice(n) for n in value.shape)] = value
    return whole


@contextmanager
def watching_nan(host: torch.nn.Module,
                 skipped: Set[torch.nn.Module]) -> Iterator[List[str]]:
    """Watch for layers that read what is not in a file.

    Where the part before the split did not run there is NaN, whatever the
    image; empty predictions would hide it.

    Args:
        host (nn.Module): The host.
        skipped (set[nn.Module]): Its modules that do not run, with all that
            is in them.

    Yields:
        list[str]: The name of the first layer whose result held a NaN, if
        there was one.
    """
    found: List[str] = []

    def watch(name: str, module: torch.nn.Module) -> RemovableHandle:

        def look(module: torch.nn.Module, args: tuple,
                 output: Any) -> None:
            if not found and any(
                    x.is_floating_point() and bool(x.isnan().any())
                    for x in tree_leaves(output) if isinstance(x, Tensor)):
                found.append(name)

        return module.register_forward_hook(look)

    inside = {id(m) for s in skipped for m in s.modules()}
    with ExitStack() as stack:
        for name, module in host.named_modules():
            if id(module) not in inside and not any(module.children()):
                stack.callback(watch(name, module).remove)
        yield found


def one_line(error: Exception) -> str:
    """What an error says, as a part of another message."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f'{text[:200]}...'
