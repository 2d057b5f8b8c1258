"""What the part of a host after the split reads."""
import logging
from contextlib import ExitStack
from typing import Any, Dict, List, Optional, Set, Tuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmfeatjnd.functional import channel_dim, to_channels_first
from mmfeatjnd.hosts import adapter_of, frozen
from .necks.featjnd_neck import FeatJNDNeck
from .splits import resolve_split


def find_read_levels(neck: FeatJNDNeck, inputs: Tensor,
                     data_samples: Optional[list]) -> None:
    """Ask a host, once, what its split emits and which of it is read.

    A level that nothing reads (an FPN with ``start_level=1`` leaves the
    first one alone) tolerates everything and needs no bits: it is neither
    changed nor measured from then on. The host predicts on the input with a
    graph from the features on, and whatever has no way back to a level does
    not depend on it. No gradient is computed.

    Args:
        neck (FeatJNDNeck): It knows its host. ``read_levels`` is set, and
            ``in_channels`` if they were not known.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.
    """
    if neck.read_levels is not None:
        return
    if neck.in_channels is not None and len(neck.levels) == 1:
        neck.read_levels = neck.levels
        return
    host = neck.host
    channels: Dict[int, int] = {}
    leaves: List[Tuple[Tensor, int]] = []
    outputs: List[Tensor] = []

    def leaf(feature: Tensor, level: int) -> Tensor:
        first = to_channels_first(feature, neck.layout_of(feature, level))
        channels[level] = first.size(channel_dim(first))
        leaves.append((feature.detach().requires_grad_(), level))
        return leaves[-1][0] + 0  # what follows may work in place

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        outputs.extend(
            x for x in tree_leaves(output)
            if isinstance(x, Tensor) and x.grad_fn is not None)

    adapter = adapter_of(host)
    # one image is enough
    samples = data_samples and data_samples[:1]
    with ExitStack() as stack:
        stack.enter_context(frozen(host))
        stack.enter_context(neck.changing(leaf))
        for module in _readers(neck):
            handle = module.register_forward_hook(keep)
            stack.callback(handle.remove)
        stack.enter_context(torch.enable_grad())
        adapter.predict(host, inputs[:1], samples)
    if not channels and (neck.by_region or neck.in_channels is None):
        return  # an image without regions, or an error told later
    if neck.in_channels is None:
        if neck.levels is None:  # a module of a list may not run
            neck.levels = tuple(sorted(channels))
        neck.learn_channels(
            [channels.get(i, 0) for i in range(max(channels) + 1)])
    found = _reachable(outputs, leaves)
    if not found:  # a host that hides its graph, or did not pass the split
        found = set(neck.levels)
    # what the split does not emit is an error of the config, told later
    found |= set(neck.levels) - channels.keys()
    neck.read_levels = tuple(i for i in neck.levels if i in found)
    if unread := [i for i in neck.levels if i not in found]:
        print_log(
            f'FeatJNDNeck: nothing of {type(host).__name__} reads level(s) '
            f"{unread} of split='{neck.split}': they are neither changed nor "
            'measured.',
            logger='current',
            level=logging.WARNING)


def _readers(neck: FeatJNDNeck) -> List[nn.Module]:
    """The modules whose outputs say that a level is read: neither the split,
    nor what it lies in, which may only hand the levels on."""
    split = set(resolve_split(neck) if neck.hooked else [neck])
    return [
        m for m in neck.host.modules()
        if split.isdisjoint(m.modules()) and not neck.is_estimator(m)
    ]


def _reachable(outputs: List[Tensor],
               leaves: List[Tuple[Tensor, int]]) -> Set[int]:
    """The levels of the leaves that lie on some way back through the
    graph."""
    levels = {id(leaf): level for leaf, level in leaves}
    nodes = [x.grad_fn for x in outputs]
    seen, found = set(nodes), set()
    while nodes:
        node = nodes.pop()
        variable = getattr(node, 'variable', None)
        if id(variable) in levels:
            found.add(levels[id(variable)])
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return found
