"""The task's gradient at the split."""
from collections import defaultdict
from typing import Dict, List, Optional

import torch
from torch import Tensor

from mmfeatjnd.hosts import adapter_of, frozen, sharing_prefix
from .necks.featjnd_neck import FeatJNDNeck
from .splits import PrefixReplay


@torch.no_grad()
def task_sensitivity(neck: FeatJNDNeck, inputs: Tensor,
                     data_samples: Optional[list]) -> Dict[int, List[Tensor]]:
    """Squared gradient of the task at the split.

    The task is the host's own loss against its own clean predictions, so no
    annotations are used; it is taken by the passes that a prediction takes.

    Args:
        neck (FeatJNDNeck): It knows its host.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.

    Returns:
        dict[int, list[Tensor]]: By level, for every time that the split is
        reached (once but for sliding windows) a tensor of the feature's
        shape.

    Raises:
        ValueError: The split lies behind a RoI extractor.
    """
    if neck.by_region:
        raise ValueError(
            f"FeatJNDNeck: split='{neck.split}' sees the regions that the "
            "host's loss samples, and others where it predicts, so the task's "
            'gradient there belongs to other regions. Use a split before '
            'them, or nothing that needs the gradient.')
    leaves: Dict[int, List[Tensor]] = defaultdict(list)

    def leaf(feature: Tensor, level: int) -> Tensor:
        if not torch.is_grad_enabled():  # the host makes its targets
            return feature
        leaves[level].append(feature.detach().requires_grad_())
        return leaves[level][-1] + 0  # what follows may work in place

    host = neck.host
    with sharing_prefix(host, PrefixReplay(neck)):
        with frozen(host), torch.enable_grad(), neck.changing(leaf):
            loss = adapter_of(host).clean_loss(host, inputs, data_samples)
            flat = [x for calls in leaves.values() for x in calls]
            grads = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    result: Dict[int, List[Tensor]] = {}
    for level, calls in leaves.items():
        result[level] = [
            torch.zeros_like(x) if g is None else g.float().square()
            for x, g in zip(calls, grads)
        ]
    return result
