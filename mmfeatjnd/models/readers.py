"""What reads a split first: the layers behind it, and their own metric.

Without a picture and without a gradient, the weights of these layers say
which directions of a feature nobody reads.
"""
from contextlib import ExitStack
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.utils import ConfigError
from .necks.featjnd_neck import FeatJNDNeck


class _Place(NamedTuple):
    """Where a level lies in a tensor: its channels from ``first`` on."""
    level: int
    first: int
    channels: int


class _Watch(TorchFunctionMode):
    """Follows levels through concatenations; keeps every tensor that it
    knows, so that no other one gets its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Dict[int, List[_Place]] = {}
        self.kept: List[Tensor] = []

    def note(self, x: Tensor, places: List[_Place]) -> None:
        self.places[x.data_ptr()] = places
        self.kept.append(x)

    def of(self, x: Tensor) -> List[_Place]:
        return self.places.get(x.data_ptr(), [])

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.cat, torch.concat) and _axis(args, kwargs) == 1:
            places, first = [], 0
            for x in args[0]:
                places += [p._replace(first=first + p.first)
                           for p in self.of(x)]
                first += x.size(1)
            if places:
                self.note(out, places)
        return out


def _axis(args: tuple, kwargs: Optional[dict]) -> int:
    return args[1] if len(args) > 1 else (kwargs or {}).get('dim', 0)


def reader_metrics(neck: FeatJNDNeck, inputs: Tensor,
                   data_samples: Optional[list]) -> Dict[int, Tensor]:
    r"""For every level :math:`\sum W^T W` over the layers that read it.

    .. math:: M = \sum_{\text{layers}} \sum_k W_k^T W_k

    over the places k of a kernel, with the scale of a batch normalization
    that follows folded into W: the mean square of what white noise makes of
    these layers' outputs. A level may reach a layer in a concatenation.

    Args:
        neck (FeatJNDNeck): It knows its host, which is in eval mode.
        inputs (Tensor): (B, 3, H, W): any picture that the host takes; it
            shows the way only.
        data_samples (list, optional): The host's data samples.

    Returns:
        dict[int, Tensor]: By level (C, C), float32.

    Raises:
        ConfigError: No convolution or linear layer reads a level directly.
    """
    watch = _Watch()
    seen = set()
    found: Dict[int, Tensor] = {}
    read: Dict[int, Tuple[nn.Module, List[_Place]]] = {}

    def begin(feature: Tensor, level: int) -> Tensor:
        seen.add(level)
        feature = feature.clone()
        dim = 1 if feature.dim() != 3 else 2
        watch.note(feature, [_Place(level, 0, feature.size(dim))])
        return feature

    def layer(module, args, output):
        places = watch.of(args[0]) if args else []
        if places:
            read[output.data_ptr()] = (module, places)
            watch.kept.append(output)
            _add(found, module, places, None)

    def norm(module, args, output):
        module_of, places = read.pop(args[0].data_ptr(), (None, []))
        if places:  # what was added without its scale
            _add(found, module_of, places, module)

    host = neck.host
    with ExitStack() as stack:
        for module in host.modules():
            if isinstance(module, (_ConvNd, nn.Linear)):
                hook = layer
            elif isinstance(module, _BatchNorm):
                hook = norm
            else:
                continue
            stack.callback(module.register_forward_hook(hook).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(neck.changing(begin))
        stack.enter_context(watch)
        adapter_of(host).predict(host, inputs, data_samples)
    missing = sorted(seen - set(found))
    if missing:
        raise ConfigError(
            f"level {missing[0]} of split='{neck.split}' is read by no "
            'convolution or linear layer directly, so there is no metric of '
            'its readers. Use the task metric (tools/estimate_metric.py).')
    return found


def _add(found: Dict[int, Tensor], module: nn.Module, places: List[_Place],
         norm: Optional[_BatchNorm]) -> None:
    """Add W^T W of a layer; with ``norm``, its scaled one in the place of
    the plain one."""
    for place in places:
        plain = _gram(module, place, None)
        if plain is None:
            continue
        more = plain if norm is None else _gram(module, place, norm) - plain
        found[place.level] = found.get(place.level, 0) + more


def _gram(module: nn.Module, place: _Place,
          norm: Optional[_BatchNorm]) -> Optional[Tensor]:
    """(C, C) of the channels at a place; None where the layer cuts them."""
    weight = module.weight.detach().float()
    weight = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]
    if norm is not None:
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight
        weight = weight * scale.detach().float()[:, None, None]
    groups = getattr(module, 'groups', 1)
    weight = weight.unflatten(0, (groups, -1))  # (G, O / G, I / G, K)
    blocks = torch.einsum('goik,gojk->gij', weight, weight)
    whole = torch.block_diag(*blocks)
    last = place.first + place.channels
    if last > len(whole):
        return None
    return whole[place.first:last, place.first:last]
