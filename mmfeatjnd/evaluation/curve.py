"""JND curves: the task metric against the NRMSE of a distortion.

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


class CurvePoint(NamedTuple):
    """One NRMSE of one distortion, over the seeds.

    Attributes:
        nrmse (float): NRMSE asked.
        mean (float): Mean of the metric; NaN where a seed's is not defined.
        std (float): Sample standard deviation of the metric, 0 for one row.
        measured (float): NRMSE measured.
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
              seed: Optional[int] = None) -> Dict[str, List[CurvePoint]]:
    """Mean and standard deviation over the seeds.

    Args:
        rows (Sequence[dict]): Rows of a curve.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.
        seed (int, optional): Only this seed's rows; a distortion that was
            measured once keeps its rows. Defaults to None: all.

    Returns:
        dict[str, list[CurvePoint]]: By distortion, sorted by NRMSE.
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
            CurvePoint(
                nrmse,
                *mean_and_std([value_of(r['metrics'], metric)
                               for r in group]),
                float(np.mean([r['nrmse_measured'] for r in group])),
                float(np.mean([r['participation_ratio'] for r in group])),
                len(group)) for nrmse, group in sorted(groups.items())
        ]
    return curves


def _tolerated(rows: Rows, distortion: str, metric: str, loss: float,
               seed: int) -> Bounded:
    points = summarize(rows, metric, seed).get(distortion, ())
    clean = value_of(clean_metrics(rows), metric)
    return crossing([(p.nrmse, p.mean) for p in points], clean, metric, loss)


def _seeds(rows: Rows, *distortions: str) -> List[int]:
    return sorted({r['seed'] for r in rows if r['distortion'] in distortions})


def tolerated_nrmse(rows: Rows,
                       distortion: str = 'featjnd',
                       loss: float = 0.01,
                       metric: Optional[str] = None) -> Estimate:
    """The NRMSE at which the metric has lost a relative share.

    Args:
        rows (Sequence[dict]): Rows of a curve.
        distortion (str): Name of the distortion. Defaults to 'featjnd'.
        loss (float): Share of the clean metric. Defaults to 0.01.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.

    Returns:
        Estimate: Mean of the seeds' own :func:`crossing`. A loss that comes
        before the least NRMSE that was measured is only bounded by it.
    """
    metric = metric or headline(rows)
    return over_seeds({
        seed: _tolerated(rows, distortion, metric, loss, seed)
        for seed in _seeds(rows, distortion)
    })


def tolerated_nrmse_ratio(rows: Rows,
                    distortion: str = 'featjnd',
                    reference: str = 'gaussian',
                    loss: float = 0.01,
                    metric: Optional[str] = None) -> Estimate:
    """How many times the reference's NRMSE a distortion may have; see
    :func:`tolerated_nrmse`.

    Args:
        reference (str): Distortion to compare with. Defaults to 'gaussian'.

    Returns:
        Estimate: Mean of the seeds' own ratios.
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
        rows (Sequence[dict]): Rows of a curve.
        distortion (str): Name of the distortion. Defaults to 'featjnd'.
        reference (str): Distortion to compare with. Defaults to 'gaussian'.
        least (float): Only where the reference costs more than this share of
            the clean metric. Defaults to 0.02.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.

    Returns:
        dict[float, float]: By NRMSE; means over the seeds. Negative where
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
        nrmse: cost / theirs[nrmse]
        for nrmse, cost in ours.items()
        if theirs.get(nrmse, 0) > least * clean
    }


def to_markdown(rows: Rows, metric: Optional[str] = None) -> str:
    """A table of the curve, NRMSE across, distortions down.

    Args:
        rows (Sequence[dict]): Rows of a curve.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.

    Returns:
        str: Markdown.
    """
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
    curves = summarize(rows, metric)
    asked = sorted({p.nrmse for points in curves.values() for p in points})
    lines = []
    for name, points in curves.items():
        cells = {p.nrmse: show(p.mean, p.std, p.num_seeds) for p in points}
        spread = np.mean([p.participation_ratio for p in points])
        limit = tolerated_nrmse(rows, name, metric=metric)
        lines.append([name, *(cells.get(x, '') for x in asked),
                      f'{spread:.2f}', f'{limit:.2f}'])
    return (
        f'`{metric}` with features distorted at the NRMSE in the head; clean '
        f'{show(clean, 0, 1)}. Mean ± standard deviation over the seeds; '
        'without ±: measured once. Participation ratio: how evenly the '
        'energy is spread, 1/3 for Gaussian noise. Last: the NRMSE at which '
        '1 % of the clean metric is lost, interpolated for each seed; < and '
        '>: beyond what was measured; ?: not known.\n\n') + markdown_table([
            'distortion', *(f'{x:g}' for x in asked), 'participation ratio',
            'NRMSE at 1 % loss'
        ], lines)


def draw(rows: Rows,
         axes,
         metric: Optional[str] = None,
         names: Optional[Dict[str, str]] = None) -> None:
    """Draw the curve on axes, with the seeds' standard deviation.

    The axis ends half as far again beyond Gaussian noise and FeatJND as they
    fall; controls that fall further leave the picture, and so does what is
    not defined.

    Args:
        rows (Sequence[dict]): Rows of a curve.
        axes (matplotlib.axes.Axes): Axes to draw on.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.
        names (dict[str, str], optional): How the legend calls the
            distortions. Defaults to None: as the rows do.
    """
    metric = metric or headline(rows)
    clean = value_of(clean_metrics(rows), metric)
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
            x, y, marker='o', ms=4, lw=2.2 if strong else 1.1,
            label=(names or {}).get(name, name))
        axes.fill_between(
            x, y - std, y + std, color=line.get_color(), alpha=0.15, lw=0)
    if fall > 0:
        show_costs(axes, metric, clean, 1.5 * fall, 0.3 * fall)


def plot(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Write the picture of :func:`draw`.

    Args:
        rows (Sequence[dict]): Rows of a curve.
        path (Path): Picture to write; its suffix gives the format.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.
    """
    metric = metric or headline(rows)
    with curve_figure(path, 'NRMSE of the features', metric) as axes:
        draw(rows, axes, metric)
