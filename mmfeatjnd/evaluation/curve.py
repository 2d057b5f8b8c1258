"""Tolerance curves: the task metric against the strength of a distortion.

A row is a dict with ``distortion``, ``nrmse`` (asked), ``nrmse_measured``,
``participation_ratio``, ``seed`` and ``metrics``; the clean host is the row
with distortion 'clean' and NRMSE 0. A distortion without a random part has
one row where others have one for each seed.
"""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np

from .crossing import Bounded, Estimate, crossing, over_seeds, ratio
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


class Point(NamedTuple):
    """One strength of one distortion, over the seeds.

    Attributes:
        nrmse (float): Strength asked.
        mean (float): The metric; NaN where a seed's is not defined.
        std (float): Its sample standard deviation, 0 for one row.
        measured (float): Strength measured.
        participation_ratio (float): How evenly the energy is spread.
        num_seeds (int): Number of rows.
    """
    nrmse: float
    mean: float
    std: float
    measured: float
    participation_ratio: float
    num_seeds: int


def summarize(rows: Rows,
              metric: Optional[str] = None,
              seed: Optional[int] = None) -> Dict[str, List[Point]]:
    """Mean and standard deviation over the seeds.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        metric (str, optional): Defaults to None: :func:`headline`.
        seed (int, optional): Only this seed's rows; a distortion that was
            measured once keeps its rows. Defaults to None: all.

    Returns:
        dict[str, list[Point]]: By distortion, sorted by strength.
    """
    metric = metric or headline(rows)
    by_distortion = defaultdict(list)
    for row in rows:
        if not is_clean(row):
            by_distortion[row['distortion']].append(row)
    curves = {}
    for distortion, members in by_distortion.items():
        groups = defaultdict(list)
        for row in members if seed is None else of_seed(members, seed):
            groups[row['nrmse']].append(row)
        curves[distortion] = [
            Point(strength,
                  *mean_and_std([value_of(r['metrics'], metric)
                                 for r in group]),
                  float(np.mean([r['nrmse_measured'] for r in group])),
                  float(np.mean([r['participation_ratio'] for r in group])),
                  len(group)) for strength, group in sorted(groups.items())
        ]
    return curves


def _tolerated(rows: Rows, distortion: str, metric: str, loss: float,
               seed: int) -> Bounded:
    points = summarize(rows, metric, seed).get(distortion, ())
    clean = value_of(clean_metrics(rows), metric)
    return crossing([(p.nrmse, p.mean) for p in points], clean, metric, loss)


def _seeds(rows: Rows, *distortions: str) -> List[int]:
    return sorted({r['seed'] for r in rows if r['distortion'] in distortions})


def tolerated_strength(rows: Rows,
                       distortion: str = 'featjnd',
                       loss: float = 0.01,
                       metric: Optional[str] = None) -> Estimate:
    """The NRMSE at which the metric has lost a relative share.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        distortion (str): Defaults to 'featjnd'.
        loss (float): Relative loss. Defaults to 0.01.
        metric (str, optional): Defaults to None: :func:`headline`.

    Returns:
        Estimate: Of the seeds' own :func:`crossing`. A loss that comes before
        the least strength that was measured is only bounded by it.
    """
    metric = metric or headline(rows)
    return over_seeds({
        seed: _tolerated(rows, distortion, metric, loss, seed)
        for seed in _seeds(rows, distortion)
    })


def tolerated_ratio(rows: Rows,
                    distortion: str = 'featjnd',
                    reference: str = 'gaussian',
                    loss: float = 0.01,
                    metric: Optional[str] = None) -> Estimate:
    """How many times the reference's strength a distortion may have.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        distortion (str): Defaults to 'featjnd'.
        reference (str): Defaults to 'gaussian'.
        loss (float): Relative loss. Defaults to 0.01.
        metric (str, optional): Defaults to None: :func:`headline`.

    Returns:
        Estimate: Of the seeds' own ratios.
    """
    metric = metric or headline(rows)
    return over_seeds({
        seed: ratio(*(_tolerated(rows, name, metric, loss, seed)
                      for name in (distortion, reference)))
        for seed in _seeds(rows, distortion, reference)
    })


def cost_ratios(rows: Rows,
                distortion: str = 'featjnd',
                reference: str = 'gaussian',
                least: float = 0.02,
                metric: Optional[str] = None) -> Dict[float, float]:
    """What a distortion costs as a share of what the reference costs.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        distortion (str): Defaults to 'featjnd'.
        reference (str): Defaults to 'gaussian'.
        least (float): Only strengths at which the reference costs more than
            this share of the clean metric. Defaults to 0.02.
        metric (str, optional): Defaults to None: :func:`headline`.

    Returns:
        dict[float, float]: By strength; means over the seeds. Negative where
        the metric is better than that of the clean host, NaN where it is not
        defined. Empty for a clean metric that is not positive.
    """
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
    if not clean > 0:
        return {}
    ours, theirs = (
        {p.nrmse: advantage(metric, clean, p.mean)
         for p in summarize(rows, metric).get(name, ())}
        for name in (distortion, reference))
    return {
        strength: cost / theirs[strength]
        for strength, cost in ours.items()
        if theirs.get(strength, 0) > least * clean
    }


def to_markdown(rows: Rows, metric: Optional[str] = None) -> str:
    """A table of the curve, strengths across, distortions down.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        metric (str, optional): Defaults to None: :func:`headline`.

    Returns:
        str: Markdown.
    """
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
    curves = summarize(rows, metric)
    strengths = sorted({p.nrmse for points in curves.values() for p in points})
    lines = []
    for name, points in curves.items():
        cells = {p.nrmse: show(p.mean, p.std, p.num_seeds) for p in points}
        spread = np.mean([p.participation_ratio for p in points])
        limit = tolerated_strength(rows, name, metric=metric)
        lines.append([name, *(cells.get(s, '') for s in strengths),
                      f'{spread:.2f}', f'{limit:.2f}'])
    return (
        f'`{metric}`, clean {show(clean, 0, 1)}. Mean ± standard deviation '
        'over the seeds; without ±: measured once. PR: participation ratio '
        '(1/3 for Gaussian noise). Tolerated: NRMSE at a relative loss of '
        '1 %, interpolated for each seed; < and >: beyond what was measured; '
        '?: not known.\n\n') + markdown_table(
            ['distortion', *(f'{s:g}' for s in strengths), 'PR', 'tolerated'],
            lines)


def plot(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Draw the curve with the seeds' standard deviation.

    The axis ends half as far again beyond Gaussian noise and FeatJND as they
    fall; controls that fall further leave the picture, and so does what is
    not defined.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        path (Path): The picture to write; its suffix gives the format.
        metric (str, optional): Defaults to None: :func:`headline`.
    """
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
    with curve_figure(path, 'NRMSE of the features', metric) as axes:
        axes.axhline(clean, color='0.6', lw=1, ls='--', label='clean')
        fall = 0.0
        for name, points in summarize(rows, metric).items():
            x = np.array([0.0] + [p.nrmse for p in points])
            y = np.array([clean] + [p.mean for p in points])
            std = np.array([0.0] + [p.std for p in points])
            strong = name.startswith('featjnd') or name == 'gaussian'
            costs = [advantage(metric, clean, v) for v in y if np.isfinite(v)]
            fall = max([fall, *costs]) if strong else fall
            line, = axes.plot(
                x, y, marker='o', ms=4, lw=2.2 if strong else 1.1, label=name)
            axes.fill_between(
                x, y - std, y + std, color=line.get_color(), alpha=0.15, lw=0)
        if fall > 0:
            show_costs(axes, metric, clean, 1.5 * fall, 0.3 * fall)
