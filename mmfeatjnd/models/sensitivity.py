"""The task's gradients at the split, and its Fisher information there."""
from collections import defaultdict
from typing import Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import image_keys, score
from mmfeatjnd.hosts import NoLikelihood, adapter_of, frozen, sharing_prefix
from .necks.featjnd_neck import FeatJNDNeck
from .run import image_ids
from .splits import PrefixReplay

#: Of every level, a tensor for every time that the split is reached (once but
#: for sliding windows).
ByLevel = Dict[int, List[Tensor]]


def task_gradients(neck: FeatJNDNeck,
                   inputs: Tensor,
                   data_samples: Optional[list],
                   draws: int = 1,
                   seed: int = 0) -> Tuple[ByLevel, Iterator[ByLevel]]:
    """Draws of the task's gradient g at the split, E[g g^T] of which is its
    Fisher information.

    The host answers once, clean, and its answer (see
    :meth:`mmfeatjnd.hosts.HostAdapter.likelihood`) is propagated back once a
    draw; no annotations are used. Where nothing is known of a host's
    likelihood, the gradient of its own loss against its own predictions
    stands in for every draw.

    Args:
        neck (FeatJNDNeck): It knows its host.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.
        draws (int): Number of draws. Defaults to 1.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        tuple: The features at the split, and an iterator over draws of their
        gradients, float32, of their shapes.

    Raises:
        ValueError: The split lies behind a RoI extractor.
    """
    if neck.by_region:
        raise ValueError(
            f"FeatJNDNeck: split='{neck.split}' sees the regions that the "
            "host's loss samples, and others where it predicts, so the task's "
            'gradient there belongs to other regions. Use a split before '
            'them, or nothing that needs the gradient.')
    leaves: ByLevel = defaultdict(list)

    def leaf(feature: Tensor, level: int) -> Tensor:
        if not torch.is_grad_enabled():  # the host makes its targets
            return feature
        leaves[level].append(feature.detach().requires_grad_())
        return leaves[level][-1] + 0  # what follows may work in place

    host, adapter = neck.host, adapter_of(neck.host)
    with sharing_prefix(host, PrefixReplay(neck)):
        with frozen(host), torch.enable_grad(), neck.changing(leaf):
            try:
                terms = adapter.likelihood(host, inputs, data_samples).terms
            except NoLikelihood:
                leaves.clear()
                terms = None
                loss = adapter.clean_loss(host, inputs, data_samples)
    keys = image_keys(
        image_ids(data_samples, len(inputs)), seed, inputs.device)
    flat = [x for calls in leaves.values() for x in calls]

    def gradients() -> Iterator[ByLevel]:
        for draw in range(draws):
            if terms is not None or draw == 0:
                with torch.enable_grad():
                    wanted = loss if terms is None else score(
                        terms, keys, draw)
                found = torch.autograd.grad(
                    wanted, flat, allow_unused=True,
                    retain_graph=draw + 1 < draws)
            rest = iter(found)
            yield {
                level: [_dense(next(rest), x) for x in calls]
                for level, calls in leaves.items()
            }

    features = {
        level: [x.detach() for x in calls]
        for level, calls in leaves.items()
    }
    return features, gradients()


def _dense(gradient: Optional[Tensor], feature: Tensor) -> Tensor:
    if gradient is None:  # nothing reads this level
        return torch.zeros_like(feature, dtype=torch.float32)
    return gradient.float()


def mean_square(gradients: Iterator[ByLevel]) -> ByLevel:
    """The diagonal of the Fisher information, E[g^2].

    Args:
        gradients (Iterator): That of :func:`task_gradients`.

    Returns:
        dict[int, list[Tensor]]: By level, of the features' shapes, float32.
    """
    total: ByLevel = {}
    draws = 0
    for found in gradients:
        draws += 1
        for level, calls in found.items():
            squares = [g.square() for g in calls]
            if level in total:
                squares = [a.add_(b) for a, b in zip(total[level], squares)]
            total[level] = squares
    return {
        level: [x / draws for x in calls]
        for level, calls in total.items()
    }


def task_sensitivity(neck: FeatJNDNeck,
                     inputs: Tensor,
                     data_samples: Optional[list],
                     draws: int = 8) -> ByLevel:
    """The diagonal of the task's Fisher information at the split.

    Args:
        neck (FeatJNDNeck): It knows its host.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.
        draws (int): Number of gradients. Defaults to 8.

    Returns:
        dict[int, list[Tensor]]: By level, for every time that the split is
        reached a tensor of the feature's shape.

    Raises:
        ValueError: See :func:`task_gradients`.
    """
    return mean_square(
        task_gradients(neck, inputs, data_samples, draws)[1])
