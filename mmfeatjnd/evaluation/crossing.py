"""Where a curve leaves what is tolerated, and how sure that is."""
import math
from typing import Dict, Iterable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .metric_values import better_when

_OPPOSITE = {'<': '>', '>': '<'}


class Bounded(NamedTuple):
    """A number, or what is known of it.

    Attributes:
        value (float): The number, or the bound.
        relation (str): '' (equal), '<' (at most), '>' (at least), or '?'
            (nothing is known; the value is NaN).
    """
    value: float
    relation: str = ''

    @property
    def exact(self) -> bool:
        return not self.relation

    def __format__(self, spec: str) -> str:
        if self.relation == '?':
            return '?'
        sign = f'{self.relation} ' if self.relation else ''
        return sign + format(self.value, spec)


UNKNOWN = Bounded(math.nan, '?')


class Estimate(NamedTuple):
    """The seeds' own numbers, their mean and their spread.

    Attributes:
        value (Bounded): The mean; bounded where a seed's number is, and
            unknown where one is unknown or they are bounded on both sides.
        std (float, optional): The sample standard deviation; None for one
            seed, or where a seed's number is only bounded.
        by_seed (dict[int, Bounded]): What they are made of.
    """
    value: Bounded
    std: Optional[float]
    by_seed: Dict[int, Bounded]

    def __format__(self, spec: str) -> str:
        text = format(self.value, spec)
        return text if self.std is None else f'{text} ± {self.std:{spec}}'


def over_seeds(by_seed: Dict[int, Bounded]) -> Estimate:
    """Mean and spread of the seeds' own numbers.

    Args:
        by_seed (dict[int, Bounded]): A number for each seed; may be empty.
    """
    numbers = list(by_seed.values())
    values = [n.value for n in numbers]
    relation = _joint(n.relation for n in numbers)
    if not numbers or relation == '?':
        return Estimate(UNKNOWN, None, by_seed)
    std = None
    if len(numbers) > 1 and not relation:
        std = float(np.std(values, ddof=1))
    return Estimate(Bounded(float(np.mean(values)), relation), std, by_seed)


def _joint(relations: Iterable[str]) -> str:
    """The relation of what rises with several numbers."""
    found = set(relations) - {''}
    return '?' if len(found) > 1 else ''.join(found)


def ratio(ours: Bounded, theirs: Bounded) -> Bounded:
    """``ours / theirs`` of positive numbers, as far as it is known."""
    # a larger denominator makes it smaller
    relation = _joint([
        ours.relation,
        _OPPOSITE.get(theirs.relation, theirs.relation)
    ])
    if relation == '?' or not theirs.value > 0:
        return UNKNOWN
    return Bounded(ours.value / theirs.value, relation)


def crossing(points: Sequence[Tuple[float, float]],
             clean: float,
             metric: str,
             loss: float = 0.01,
             rising: bool = True) -> Bounded:
    """The setting at which a metric has lost a relative share.

    The curve is followed from its mildest setting (the least noise, the most
    bits) to the first measured point that has lost more, and is taken as
    linear between the two points there. So a lucky point beyond does not
    count, and nothing is said of settings that were not measured.

    Args:
        points (Sequence[tuple]): Setting and metric, in any order.
        clean (float): The metric of the clean host.
        metric (str): Its name, which tells whether more of it is better.
        loss (float): Share of the clean metric. Defaults to 0.01.
        rising (bool): Whether a larger setting is harsher, as it is of
            noise; False for bits. Defaults to True.

    Returns:
        Bounded: The setting. Outside of what was measured, or where the next
        point is not defined, only a bound: for noise '<' the least NRMSE
        where it costs too much already, '>' the last that costs less; for
        bits the other way round. Unknown without points, where the mildest is
        not defined, or for a clean metric that is not positive.
    """
    if not clean > 0:
        return UNKNOWN
    higher = better_when(metric) == 'higher'
    limit = clean * (1 - loss if higher else 1 + loss)
    milder, harsher = ('<', '>') if rising else ('>', '<')
    last = None
    for x, y in sorted(points, reverse=not rising):
        if not math.isfinite(y):
            break
        if (y < limit) if higher else (y > limit):
            if last is None:
                return Bounded(x, milder)
            share = (limit - last[1]) / (y - last[1])
            return Bounded(last[0] + share * (x - last[0]))
        last = x, y
    return UNKNOWN if last is None else Bounded(last[0], harsher)
