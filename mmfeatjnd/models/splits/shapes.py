"""Ship what runs before a split as shapes, to where the image is not."""
from typing import Any, Dict, List

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .reach import resolve_split
from .replay import PrefixReplay, prefix_candidates


def to_blank(output: Any) -> Any:
    """Floats on the meta device, which holds shapes and dtypes only; integer
    and boolean tensors, such as masks, on the CPU."""
    return tree_map(
        lambda x: x.detach().to('meta' if x.is_floating_point() else 'cpu')
        if isinstance(x, Tensor) else x, output)


def from_blank(output: Any, device: torch.device) -> Any:
    """NaN for every float that :func:`to_blank` left out, in no memory."""

    def fill(x):
        if not isinstance(x, Tensor) or not x.is_meta:
            return x.to(device) if isinstance(x, Tensor) else x
        nan = torch.full((), torch.nan, dtype=x.dtype, device=device)
        return nan.expand(x.shape)

    return tree_map(fill, output)


class PrefixShapes(PrefixReplay):
    """The part before the split as shapes, where it runs somewhere else.

    ``with shapes.record(): pass`` as for :class:`PrefixReplay`; ``with
    shapes.replay()`` returns NaN of the same shapes, so what is read from
    before the split, and was not sent, shows in the prediction.

    Args:
        neck (FeatJNDNeck): The host's; it knows its host.
    """

    def __init__(self, neck) -> None:
        super().__init__(neck)
        split = resolve_split(neck) if neck.hooked else []
        # what the operation replaces need not be computed
        self.replaced = {
            m for i, m in enumerate(split)
            if len(split) > 1 and neck.works_on(i)
        }

    def _candidates(self) -> List[nn.Module]:
        return prefix_candidates(self.neck)

    def _finished(self, module: nn.Module, seen: set) -> bool:
        return not seen or module in self.replaced

    def _keep(self, output: Any) -> Any:
        return to_blank(output)

    def _give(self, kept: Any) -> Any:
        # of a receiver the part before the split may be shapes, too
        return from_blank(kept, next(
            p.device for p in self.host.parameters() if not p.is_meta))

    def state_dict(self) -> Dict[str, List[Any]]:
        """What was recorded, by the names of the modules."""
        names = {m: n for n, m in self.host.named_modules()}
        return {names[m]: outputs for m, outputs in self.outputs.items()}

    def load_state_dict(self, state: Dict[str, List[Any]]) -> None:
        """Take what :meth:`state_dict` returned in another process.

        Raises:
            ValueError: It names a module that is not before this split.
        """
        candidates = set(self.candidates)
        names = {
            n: m
            for n, m in self.host.named_modules() if m in candidates
        }
        if unknown := sorted(state.keys() - names):
            raise ValueError(f"'{unknown[0]}' does not lie before "
                             f"split='{self.neck.split}'")
        self.outputs = {names[n]: outputs for n, outputs in state.items()}
