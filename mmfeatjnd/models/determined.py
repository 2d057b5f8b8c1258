"""Levels of a split that are computed from other levels of it."""
import logging
from contextlib import ExitStack
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mmfeatjnd.hosts import adapter_of, frozen
from mmfeatjnd.utils import log
from .necks.featjnd_neck import FeatJNDNeck


def determined_levels(neck: FeatJNDNeck, inputs: Tensor,
                      data_samples: Optional[list]) -> Dict[int, int]:
    """The levels that a receiver could compute from another one.

    The stages of a backbone are such levels: of ``backbone.layer2`` follow
    those of ``layer3`` and ``layer4``, and whoever sends all of them pays
    twice. A level that goes through a layer of its own on its way out of the
    split, such as a norm, is not found.

    Args:
        neck (FeatJNDNeck): It knows its host.
        inputs (Tensor): (B, 3, H, W), as the host takes them; one image is
            looked at.
        data_samples (list, optional): The host's data samples.

    Returns:
        dict[int, int]: By level the earliest level that it is computed from.
    """
    return _earliest(_look(neck, inputs, data_samples)[0])


def tell_determined(neck: FeatJNDNeck, inputs: Tensor,
                    data_samples: Optional[list]) -> None:
    """Warn of a split whose levels determine each other, and name the module
    to split at instead."""
    levels, names = _look(neck, inputs, data_samples)
    found = _earliest(levels)
    if not found:
        return
    first = sorted(set(found.values()))
    hint = ' and '.join(
        f"split='{names[i]}'" for i in first if i in names) or \
        'split at an inner module'
    log(f"level(s) {sorted(found)} of split='{neck.split}' are computed from "
        f'level(s) {first}: who sends all of them sends the same twice. '
        f'Compare with {hint}, where the receiver computes the others.',
        logging.WARNING)


def _look(neck: FeatJNDNeck, inputs: Tensor, data_samples: Optional[list]
          ) -> Tuple[Dict[int, Tensor], Dict[int, str]]:
    """The levels of one image with the graph that they come from, and of each
    the outermost module before the split that returns it; nothing of a single
    level."""
    levels: Dict[int, Tensor] = {}
    names: Dict[int, str] = {}
    if neck.levels is not None and len(neck.levels) == 1:
        return levels, names
    returned: List[Tuple[str, Tensor]] = []

    def keep(feature: Tensor, level: int) -> Tensor:
        levels[level] = feature
        found = [n for n, x in returned if x is feature]
        if found:
            names[level] = min(found, key=lambda n: n.count('.'))
        return feature

    def note(name: str, module: nn.Module):
        def hook(module, args, output):
            if isinstance(output, Tensor):
                returned.append((name, output))
        # before the hook of a split
        return module.register_forward_hook(hook, prepend=True)

    with ExitStack() as stack:
        for name, module in neck.host.named_modules():
            if name:
                stack.callback(note(name, module).remove)
        stack.enter_context(frozen(neck.host))
        stack.enter_context(neck.changing(keep))
        stack.enter_context(torch.enable_grad())
        adapter_of(neck.host).predict(
            neck.host, inputs[:1].detach().requires_grad_(),
            data_samples and data_samples[:1])
    return levels, names


def _earliest(levels: Dict[int, Tensor]) -> Dict[int, int]:
    """By level the earliest level in whose graph it lies."""
    found: Dict[int, int] = {}
    for level, feature in sorted(levels.items()):
        earlier = [i for i in levels if i < level and i not in found]
        if feature.grad_fn is None or not earlier:
            continue
        ways = torch.autograd.grad(
            feature.sum(), [levels[i] for i in earlier], retain_graph=True,
            allow_unused=True)
        for i, way in zip(earlier, ways):
            if way is not None:
                found[level] = i
                break
    return found
