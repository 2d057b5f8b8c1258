"""Tolerance curves: the task metric against the strength of a distortion.

A row is a dict with ``distortion``, ``nrmse`` (asked), ``nrmse_measured``,
``participation_ratio``, ``seed`` and ``metrics``; the clean host is the row
with distortion 'clean' and NRMSE 0.
"""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np

Rows = Sequence[dict]


class Point(NamedTuple):
    """One strength of one distortion, over the seeds."""
    nrmse: float
    mean: float
    std: float
    measured: float
    participation_ratio: float
    num_seeds: int


def clean_metrics(rows: Rows) -> Dict[str, float]:
    """Metrics of the host without a distortion or quantization."""
    return next(r['metrics'] for r in rows
                if 'clean' in (r.get('distortion'), r.get('policy')))


def headline(rows: Rows) -> str:
    """The first metric of the clean row: what the curves show."""
    return next(iter(clean_metrics(rows)))


def summarize(rows: Rows, metric: Optional[str] = None
              ) -> Dict[str, List[Point]]:
    """Mean and standard deviation over the seeds.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        metric (str, optional): Defaults to None: :func:`headline`.

    Returns:
        dict[str, list[Point]]: By distortion, sorted by strength. The
        standard deviation is the sample's (n - 1), 0 for one seed.
    """
    metric = metric or headline(rows)
    groups = defaultdict(list)
    for row in rows:
        if row['distortion'] != 'clean':
            groups[row['distortion'], row['nrmse']].append(row)
    curves: Dict[str, List[Point]] = defaultdict(list)
    for (distortion, strength), group in sorted(
            groups.items(), key=lambda item: item[0][1]):
        values = np.array([r['metrics'][metric] for r in group], float)
        curves[distortion].append(
            Point(
                strength, values.mean(),
                values.std(ddof=1) if np.ptp(values) > 0 else 0.0,
                float(np.mean([r['nrmse_measured'] for r in group])),
                float(np.mean([r['participation_ratio'] for r in group])),
                len(group)))
    return dict(curves)


def tolerated_strength(points: Sequence[Point],
                       clean: float,
                       loss: float = 0.01) -> float:
    """The NRMSE at which the metric has lost a relative share.

    Linear between the measured strengths, from the clean metric at 0; the
    first crossing counts.

    Args:
        points (Sequence[Point]): One distortion's curve.
        clean (float): The clean metric.
        loss (float): Relative loss. Defaults to 0.01.

    Returns:
        float: The strength, or infinity if the loss is not reached by the
        largest one.
    """
    limit = clean * (1 - loss)
    x0, y0 = 0.0, clean
    for point in points:
        if point.mean < limit:
            return x0 + (point.nrmse - x0) * (y0 - limit) / (y0 - point.mean)
        x0, y0 = point.nrmse, point.mean
    return float('inf')


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
        dict[float, float]: By strength; means over the seeds.
    """
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    curves = summarize(rows, metric)
    theirs = {p.nrmse: clean - p.mean for p in curves.get(reference, ())}
    return {
        p.nrmse: (clean - p.mean) / theirs[p.nrmse]
        for p in curves.get(distortion, ())
        if theirs.get(p.nrmse, 0) > least * clean
    }


def to_markdown(rows: Rows, metric: Optional[str] = None) -> str:
    """A table of the curve, strengths across, distortions down."""
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    curves = summarize(rows, metric)
    strengths = sorted({p.nrmse for points in curves.values() for p in points})
    lines = [
        f'`{metric}`, clean {clean:.4g}. Mean ± standard deviation over the '
        'seeds. PR: participation ratio (1/3 for Gaussian noise). Tolerated: '
        'NRMSE at a relative loss of 1 %, interpolated.', '',
        '| distortion | ' + ' | '.join(f'{s:g}' for s in strengths) +
        ' | PR | tolerated |',
        '|---|' + '---|' * (len(strengths) + 2)
    ]
    for name, points in curves.items():
        cells = {p.nrmse: f'{p.mean:.4g} ± {p.std:.2g}' for p in points}
        limit = tolerated_strength(points, clean)
        lines.append(
            f'| {name} | ' + ' | '.join(cells.get(s, '') for s in strengths) +
            f' | {np.mean([p.participation_ratio for p in points]):.2f} | ' +
            (f'{limit:.2f} |' if np.isfinite(limit) else
             f'> {points[-1].nrmse:g} |'))
    return '\n'.join(lines) + '\n'


def plot(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Draw the curve with the seeds' standard deviation.

    The axis ends half as far again below Gaussian noise and FeatJND as they
    fall; controls that fall further leave the picture.

    Args:
        rows (Sequence[dict]): The rows of a curve.
        path (Path): The picture to write; its suffix gives the format.
        metric (str, optional): Defaults to None: :func:`headline`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    figure = Figure(figsize=(7.2, 4.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhline(clean, color='0.6', lw=1, ls='--', label='clean')
    lowest = clean
    for name, points in summarize(rows, metric).items():
        x = np.array([0.0] + [p.nrmse for p in points])
        y = np.array([clean] + [p.mean for p in points])
        std = np.array([0.0] + [p.std for p in points])
        strong = name.startswith('featjnd') or name == 'gaussian'
        lowest = min(lowest, y.min()) if strong else lowest
        line, = axes.plot(
            x, y, marker='o', ms=4, lw=2.2 if strong else 1.1, label=name)
        axes.fill_between(
            x, y - std, y + std, color=line.get_color(), alpha=0.15, lw=0)
    if lowest < clean:  # a control that collapses must not flatten the rest
        axes.set_ylim(clean - 1.5 * (clean - lowest),
                      clean + 0.3 * (clean - lowest))
    axes.set_xlabel('NRMSE of the features')
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)
