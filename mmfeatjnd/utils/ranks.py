"""Work that one process does for all."""
from typing import Any, Callable, List, TypeVar

from mmengine.dist import broadcast_object_list, get_dist_info, is_distributed

T = TypeVar('T')


def on_first_rank(function: Callable[[], T]) -> T:
    """Run a function on rank 0 only.

    Args:
        function (Callable): Without arguments.

    Returns:
        Any: What it returns, on every rank.

    Raises:
        ValueError | RuntimeError | OSError: On every rank, what it raises of
            these.
    """
    result: List[Any] = [None, None]  # what it returns, what it raises
    if get_dist_info()[0] == 0:
        try:
            result[0] = function()
        except (ValueError, RuntimeError, OSError) as error:
            result[1] = error
    if is_distributed():
        broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return result[0]
