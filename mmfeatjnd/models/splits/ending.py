"""A pass of a host that ends at its split."""
from contextlib import nullcontext, suppress
from typing import Any, Callable, Collection, ContextManager

from torch import Tensor


class _Reached(Exception):
    """All levels are known."""


def run_until_split(neck, change: Callable[[Tensor, int], Tensor],
                    levels: Collection[int], forward: Callable[[], Any],
                    watch: ContextManager = nullcontext()) -> None:
    """Run a host, and end where all levels are known.

    Args:
        neck (FeatJNDNeck): The host's.
        change (Callable): Gets every feature and its level, and returns what
            takes its place.
        levels (Collection[int]): The levels.
        forward (Callable): Runs the host.
        watch (ContextManager): Of the pass, such as
            :meth:`PrefixReplay.record`. Defaults to none.
    """
    seen = set()

    def stop(feature: Tensor, level: int) -> Tensor:
        value = change(feature, level)
        seen.add(level)
        if seen >= set(levels):
            raise _Reached
        return value

    # to what watches, the pass has ended as any other
    with neck.changing(stop), watch, suppress(_Reached):
        forward()
