"""Task metrics as numbers: which there are, and which way they are better."""
import logging
import math
import re
from functools import lru_cache
from typing import Dict, Tuple

from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

# What is better when lower, beside MMEngine's own keys: parts of the names
# that the metrics of the three host libraries, and common ones, have.
_LOWER = {
    'mae', 'mse', 'rmse', 'nrmse', 'err', 'error', 'kl', 'nll', 'ece',
    'rel', 'silog', 'log10', 'mr', 'mmr', 'fp', 'fn', 'idfp', 'idfn', 'idsw',
    'frag', 'ml'
}


def better_when(metric: str) -> str:
    """The direction in which a metric is better.

    Told from its name, case aside: 'lower' where the name holds one of the
    ``less_keys`` of MMEngine's ``CheckpointHook`` ('loss'), or where one of
    its words (between other characters than letters and digits) is that of an
    error, such as 'rmse' or 'error'.

    Args:
        metric (str): Name of the metric, e.g. 'coco/bbox_mAP'.

    Returns:
        str: 'higher' or 'lower'.
    """
    name = metric.lower()
    words = set(re.split(r'[^a-z0-9]+', name))
    lower = words & _LOWER or any(
        key in name for key in CheckpointHook._default_less_keys)
    return 'lower' if lower else 'higher'


def advantage(metric: str, ours: float, theirs: float) -> float:
    """How much better one value of a metric is than another.

    Args:
        metric (str): Name of the metric.
        ours (float): One value.
        theirs (float): The other.

    Returns:
        float: Positive where ``ours`` is better; NaN where one is undefined.
    """
    difference = ours - theirs
    return difference if better_when(metric) == 'higher' else -difference


def scalar_metrics(metrics: dict) -> Dict[str, float]:
    """Those of an evaluator's results that are one number.

    COCO's tools write -1 for a precision or recall that is not defined
    (no object of that size, no detection): it becomes NaN, as does None.

    Args:
        metrics (dict): Results of an evaluator: numbers, NumPy's or
            PyTorch's scalars, or anything else.

    Returns:
        dict[str, float]: The numbers. What is none (a confusion matrix,
        values per class, a text) is left out, and a warning names it once.
    """
    numbers, others = {}, []
    for name, value in metrics.items():
        number = _number(value)
        if number is None:
            others.append(name)
            continue
        if number == -1 and re.search('AP|AR', name):
            number = math.nan
        numbers[name] = number
    if others:
        _tell_left_out(tuple(others))
    return numbers


def _number(value):
    """A float, or None for what is not one number."""
    if value is None:
        return math.nan
    # of arrays and tensors, on any device
    if hasattr(value, 'item') and getattr(value, 'size', None) is not None:
        size = value.numel() if hasattr(value, 'numel') else value.size
        if size != 1:
            return None
        value = value.item()
    return float(value) if isinstance(value, (bool, int, float)) else None


@lru_cache(maxsize=None)  # a curve has the same metrics in every row
def _tell_left_out(names: Tuple[str, ...]) -> None:
    print_log(
        'Left out, as they are not one number: ' + ', '.join(names),
        logger='current',
        level=logging.WARNING)
