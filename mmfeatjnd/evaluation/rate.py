"""Rate curves: the task metric against bits, and at equal noise.

A row is a dict with ``policy``, ``protocol`` ('rate' or 'equal-noise'),
what was asked: ``mean_bits`` (per element of the data set), ``bits`` (per
element of each image) or ``noise_budget`` (NRMSE of each image),
``nrmse_measured``, ``bits_per_element`` (entropy model, without side
information), ``coded_bits_per_element`` (bytes written, side information
included), ``seed`` and ``metrics``; the clean host is the row with policy
'clean'. A policy without a random part has one row where others have one for
each seed.

Both bits per element are totals of the data set over totals: all bits of all
images and levels, divided by all elements. Such rows say ``bits_of='data
set'``; older ones hold the mean of the images' own ratios, which weighs a
small image like a large one.

*The rate* is the coded bits per element, or the entropy model's where no
bytes were written.

The arguments are those of :mod:`mmfeatjnd.evaluation.curve`: ``rows``, the
names of policies in place of distortions, and ``metric``, by default the
:func:`headline`.
"""
import math
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from scipy import stats

from .crossing import Bounded, Estimate, crossing, over_seeds
from .figure import curve_figure, show_costs
from .metric_values import advantage
from .rows import (
    Rows,
    clean_metrics,
    headline,
    is_clean,
    markdown_table,
    mean_and_std,
    of_seed,
    show,
    value_of,
)

PROTOCOLS = ('rate', 'equal-noise')


class RatePoint(NamedTuple):
    """One setting of one policy, over the seeds.

    Attributes:
        target (float): What was asked: bits per element, or NRMSE.
        bits (float): Bits per element, by the entropy model.
        coded_bits (float, optional): Bits per element, bytes written.
        nrmse (float): Measured.
        mean (float): The metric; NaN where a seed's is not defined.
        std (float): Its sample standard deviation, 0 for one row.
        ci95 (float): Half the 95 % confidence interval of the mean over the
            seeds, by Student's t; 0 for one row. It says nothing of the
            choice of test images.
        num_seeds (int): Number of rows.
    """
    target: float
    bits: float
    coded_bits: Optional[float]
    nrmse: float
    mean: float
    std: float
    ci95: float
    num_seeds: int

    @property
    def rate(self) -> float:
        """Bits per element: coded, or else the entropy model's."""
        return self.bits if self.coded_bits is None else self.coded_bits


def has_coded_bits(rows: Rows) -> bool:
    """Whether bytes were written, so that the rate is of these."""
    return any(
        r.get('coded_bits_per_element') is not None for r in rows)


def _groups(rows: Rows, protocol: str,
            seed: Optional[int]) -> Dict[tuple, List[dict]]:
    """Rows by policy and setting."""
    by_policy = defaultdict(list)
    for row in rows:
        if not is_clean(row) and row['protocol'] == protocol:
            by_policy[row['policy']].append(row)
    groups = defaultdict(list)
    for policy, members in by_policy.items():
        if seed is not None:
            members = of_seed(members, seed)
        rank: Dict[int, int] = defaultdict(int)
        for row in sorted(members, key=lambda r: r['bits_per_element']):
            if protocol == 'equal-noise':
                target = row['noise_budget']
            else:
                target = row.get('mean_bits')
                target = row.get('bits') if target is None else target
                if target is None:  # not kept: the i-th of every seed
                    target = float(rank[row['seed']])
                    rank[row['seed']] += 1
            groups[policy, target].append(row)
    return groups


def _point(target: float, group: Rows, metric: str) -> RatePoint:
    mean, std = mean_and_std([value_of(r['metrics'], metric) for r in group])
    coded = [r.get('coded_bits_per_element') for r in group]
    ci95 = 0.0
    if len(group) > 1:
        t = stats.t.ppf(0.975, len(group) - 1)
        ci95 = float(t * std / math.sqrt(len(group)))
    return RatePoint(
        target, float(np.mean([r['bits_per_element'] for r in group])),
        None if None in coded else float(np.mean(coded)),
        float(np.mean([r['nrmse_measured'] for r in group])), mean, std, ci95,
        len(group))


def summarize(rows: Rows,
              metric: Optional[str] = None,
              protocol: str = 'rate',
              seed: Optional[int] = None) -> Dict[str, List[RatePoint]]:
    """Means over the seeds, as :func:`mmfeatjnd.evaluation.curve.summarize`.

    Args:
        rows, metric, seed: See there.
        protocol (str): 'rate' or 'equal-noise'. Defaults to 'rate'.

    Returns:
        dict[str, list[RatePoint]]: By policy, in the order of the rows. Of
        'rate': by rising rate; of 'equal-noise': by rising budget.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f'protocol must be one of {PROTOCOLS}, but got '
                         f'{protocol!r}')
    metric = metric or headline(rows)
    curves: Dict[str, List[RatePoint]] = {}
    for (policy, target), group in _groups(rows, protocol, seed).items():
        curves.setdefault(policy, []).append(_point(target, group, metric))
    for points in curves.values():
        points.sort(key=lambda p: p.rate if protocol == 'rate' else p.target)
    return curves


def _seeds(rows: Rows, *policies: str) -> List[int]:
    return sorted({
        r['seed']
        for r in rows if r['policy'] in policies and r['protocol'] == 'rate'
    })


def _bits_at_loss(rows: Rows, policy: str, metric: str, loss: float,
                  seed: int) -> Bounded:
    points = summarize(rows, metric, seed=seed).get(policy, ())
    return crossing([(p.rate, p.mean) for p in points],
                    value_of(clean_metrics(rows), metric), metric, loss,
                    rising=False)


def bits_at_loss(rows: Rows,
                 policy: str = 'featjnd',
                 loss: float = 0.01,
                 metric: Optional[str] = None) -> Estimate:
    """The rate at which the metric has lost a relative share.

    A curve that is not monotone gets the smallest rate above which every
    measured point stays within the loss; a lucky coarse point does not count.

    Args:
        rows, policy, loss, metric: As of
            :func:`mmfeatjnd.evaluation.curve.tolerated_nrmse`.

    Returns:
        Estimate: Bits per element, of the seeds' own :func:`crossing`.
    """
    metric = metric or headline(rows)
    return over_seeds({
        seed: _bits_at_loss(rows, policy, metric, loss, seed)
        for seed in _seeds(rows, policy)
    })


def meets_target(point: RatePoint, precision: float = 0.05) -> bool:
    """Whether a point of 'equal-noise' has the noise that was asked.

    A quantizer with a fixed number of bins cannot make little noise.

    Args:
        point (RatePoint): A point of 'equal-noise'.
        precision (float): Largest relative difference. Defaults to 0.05.
    """
    return abs(point.nrmse / point.target - 1) <= precision


def to_markdown(rows: Rows, metric: Optional[str] = None) -> str:
    """Tables of both protocols, as far as there are rows.

    Args:
        rows, metric: See :func:`mmfeatjnd.evaluation.curve.to_markdown`.

    Returns:
        str: Markdown: policies down, settings across.
    """
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
    kind = 'coded bits' if has_coded_bits(rows) else 'bits (entropy model)'
    parts = [
        f'`{metric}`, clean {show(clean, 0, 1)}. Mean ± standard deviation '
        f'over the seeds, in brackets the {kind} per element; without ±: '
        'measured once.\n'
    ]
    for protocol in PROTOCOLS:
        curves = summarize(rows, metric, protocol)
        if not curves:
            continue
        by_rate = protocol == 'rate'
        targets = sorted({p.target for ps in curves.values() for p in ps})
        lines = []
        for name, points in curves.items():
            cells = {}
            for p in points:
                cells[p.target] = 'not reached'
                if by_rate or meets_target(p):
                    cells[p.target] = show(p.mean, p.std, p.num_seeds) + \
                        f' ({p.rate:.3f})'
            line = [name] + [cells.get(t, '') for t in targets]
            if by_rate:
                line.append(f'{bits_at_loss(rows, name, metric=metric):.3f}')
            lines.append(line)
        if by_rate:
            parts.append('At a rate: by the bits per element aimed at, before '
                         'side information. Last: the rate at a relative loss '
                         'of 1 %, interpolated for each seed; < and >: beyond '
                         'what was measured; ?: not known.\n')
            head = ['policy', *(f'{t:g}' for t in targets), '1 % loss']
        else:
            parts.append('At equal noise: by the NRMSE of every image and '
                         'level.\n')
            head = ['policy', *(f'{t:g}' for t in targets)]
        parts.append(markdown_table(head, lines))
    return '\n'.join(parts)


# The same policy looks the same in every picture.
_STYLES = {
    'featjnd': ('#d62728', 'o'),
    'permuted-steps': ('#ff7f0e', 'v'),
    'one-step': ('#1f77b4', 's'),
    'clip-uniform': ('#2ca02c', 'D'),
    'water-filling': ('#9467bd', '^'),
    'range': ('#8c564b', 'X'),
    'gradient': ('#7f7f7f', 'P'),
}
_OTHERS = [('#17becf', '<'), ('#e377c2', '>'), ('#bcbd22', 'h'),
           ('#000000', '*'), ('#98df8a', 'd'), ('#c5b0d5', 'p')]


def _draw(rows: Rows, path: Path, metric: Optional[str],
          protocol: str) -> None:
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
    by_rate = protocol == 'rate'
    kind = 'coded' if has_coded_bits(rows) else 'entropy model'
    others = iter(_OTHERS * 9)
    falls = {True: 0.0, False: 0.0}  # of FeatJND, and of the others
    xy = []
    with curve_figure(
            path, f'bits per element ({kind})' if by_rate else
            'NRMSE of the features', metric) as axes:
        axes.axhline(clean, color='0.3', lw=1, label='clean')
        if clean > 0:
            axes.axhline(
                clean - advantage(metric, 0.01 * clean, 0),
                color='0.3',
                lw=1,
                ls='--',
                label='1 % loss')
        for name, points in summarize(rows, metric, protocol).items():
            points = [
                p for p in points
                if math.isfinite(p.mean) and (by_rate or meets_target(p))
            ]
            if not points:
                continue
            x = np.array([p.rate if by_rate else p.target for p in points])
            y = np.array([p.mean for p in points])
            ci95 = np.array([p.ci95 for p in points])
            costs = [advantage(metric, clean, v) for v in y]
            xy.extend(zip(x, costs))
            strong = name.startswith('featjnd')
            falls[strong] = max(falls[strong], *costs)
            color, marker = _STYLES.get(name) or next(others)
            axes.plot(
                x,
                y,
                color=color,
                marker=marker,
                ms=5,
                lw=2.4 if strong else 1.2,
                zorder=3 if strong else 2,
                label=name)
            axes.fill_between(
                x, y - ci95, y + ci95, color=color, alpha=0.15, lw=0)
        seen = [x for x, _ in xy]
        if clean > 0:
            # What collapses must not flatten the rest, nor hide the line of
            # 1 % loss.
            fall = falls[falls[True] > 0]
            fall = min(
                max(fall, 0.03 * clean), (0.06 if by_rate else 0.12) * clean)
            show_costs(axes, metric, clean, 1.25 * fall, 0.25 * fall)
            seen = [x for x, cost in xy if cost < 1.25 * fall]
        if by_rate:
            _show_rates(axes, seen)


def _show_rates(axes, seen: Sequence[float]) -> None:
    """An axis of rates, as wide as those that are seen."""
    from matplotlib.ticker import FuncFormatter, NullFormatter
    axes.set_xscale('log', base=2)
    if seen:
        narrow = max(seen) < 4 * min(seen)  # show some power of 2
        margin = 1.5 if narrow else 1.15
        axes.set_xlim(min(seen) / margin, max(seen) * margin)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f'{v:g}'))
    axes.xaxis.set_minor_formatter(NullFormatter())


def plot(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Picture of the metric against the rate, with 95 % confidence intervals.

    The axis ends a quarter further below than FeatJND falls, but shows a loss
    of 7.5 % at most (:func:`plot_noise`: 15 %); what falls further leaves the
    picture.

    Args:
        rows, path, metric: See :func:`mmfeatjnd.evaluation.curve.plot`.
    """
    _draw(rows, path, metric, 'rate')


def plot_noise(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Picture of the metric against the noise budget; see :func:`plot`.
    Budgets that a policy did not meet are left out."""
    _draw(rows, path, metric, 'equal-noise')
