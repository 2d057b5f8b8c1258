"""Levels of a split that are computed from other levels of it."""
import logging
from contextlib import ExitStack
from typing import Dict, List, Optional

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
    if neck.levels is not None and len(neck.levels) == 1:
        return {}
    levels: Dict[int, Tensor] = {}

    def keep(feature: Tensor, level: int) -> Tensor:
        levels[level] = feature
        return feature

    samples = data_samples and data_samples[:1]
    with ExitStack() as stack:
        stack.enter_context(frozen(neck.host))
        stack.enter_context(neck.changing(keep))
        stack.enter_context(torch.enable_grad())
        adapter_of(neck.host).predict(
            neck.host, inputs[:1].detach().requires_grad_(), samples)
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


def tell_determined(neck: FeatJNDNeck, inputs: Tensor,
                    data_samples: Optional[list]) -> None:
    """Warn of a split whose levels determine each other, and name the module
    to split at instead."""
    found = determined_levels(neck, inputs, data_samples)
    if not found:
        return
    first = sorted(set(found.values()))
    modules = [_source(neck, inputs, data_samples, i) for i in first]
    hint = ' and '.join(f"split='{m}'" for m in modules if m) or \
        'split at an inner module'
    log(f"level(s) {sorted(found)} of split='{neck.split}' are computed from "
        f'level(s) {first}: who sends all of them sends the same twice. '
        f'Compare with {hint}, where the receiver computes the others.',
        logging.WARNING)


def _source(neck: FeatJNDNeck, inputs: Tensor, data_samples: Optional[list],
            level: int) -> Optional[str]:
    """The name of the outermost module that returns a level and lies before
    the split."""
    returned: List[tuple] = []
    wanted: List[Tensor] = []

    def keep(feature: Tensor, index: int) -> Tensor:
        if index == level:
            wanted.append(feature)
        return feature

    def note(name: str, module: nn.Module):
        def hook(module, args, output):
            if isinstance(output, Tensor) and not wanted:
                returned.append((name, output))
        return module.register_forward_hook(hook, prepend=True)

    with ExitStack() as stack:
        for name, module in neck.host.named_modules():
            if name:
                stack.callback(note(name, module).remove)
        stack.enter_context(neck.changing(keep))
        stack.enter_context(torch.no_grad())
        adapter_of(neck.host).predict(
            neck.host, inputs[:1], data_samples and data_samples[:1])
    names = [n for n, x in returned if wanted and x is wanted[0]]
    return min(names, key=lambda n: n.count('.')) if names else None
