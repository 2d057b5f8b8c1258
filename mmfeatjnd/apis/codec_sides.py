"""The two sides of a split host: what goes on there, what is left out."""
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Optional, Set

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from mmfeatjnd.functional import from_channels_first, to_channels_first
from mmfeatjnd.models import FeatJNDNeck
from mmfeatjnd.models.canvas import filled


class CodecError(ValueError):
    """An image, a file or a split that cannot be coded; the message says
    why."""


class Receiver:
    """Returns the decoded features."""

    def __init__(self, neck: FeatJNDNeck, features: Dict[int, Tensor],
                 strides: Dict[int, tuple],
                 canvas: Optional[Dict[int, Tensor]] = None) -> None:
        self.neck = neck
        self.features = features
        self.strides = strides
        self.canvas = canvas
        self.used: Set[int] = set()

    def __call__(self, feature: Tensor, level: int) -> Tensor:
        if level not in self.features:  # nothing reads it
            return feature
        value = self.features[level]
        if level in self.used:
            raise CodecError(
                f"the host runs split='{self.neck.split}' several times for "
                'one image, as a sliding window does; a stream holds one '
                "pass. For MMSegmentation set model.test_cfg.mode='whole'")
        self.used.add(level)
        layout = self.neck.layout_of(feature, level)
        whole = self._whole(value,
                            to_channels_first(feature, layout).shape, level)
        return from_channels_first(whole, layout).to(feature.device)

    def _whole(self, value: Tensor, shape: torch.Size, level: int) -> Tensor:
        """Decoded features in the shape and layout of the host's: sums depend
        on the layout in the last bit."""
        fits = value.shape == shape or (
            value.dim() == len(shape) == 4 and value.shape[:2] == shape[:2]
            and all(n <= m for n, m in zip(value.shape, shape)))
        if not fits:
            raise CodecError(
                f'level {level} was sent with shape {tuple(value.shape)}, but '
                f'the host expects {tuple(shape)}')
        whole = torch.empty_strided(
            shape, self.strides[level], dtype=value.dtype, device=value.device)
        if value.shape != shape:
            whole.copy_(filled(self.canvas, level, whole))
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
