"""JND curves: the task metric against the NRMSE of a distortion.

A row is a dict with ``distortion``, ``nrmse`` (asked), ``nrmse_measured``,
``participation_ratio``, ``seed`` and ``metrics``; the clean host is the row
with distortion 'clean' and NRMSE 0. A distortion without a random part has
one row where others have one for each seed.

Rows of several units of strength (``definition``) or ranges of the features
(``valid``) are curves of their own: :func:`rows_of` picks those of one.
"""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .comparison import SETTING
from .crossing import Bounded, Estimate, crossing, over_seeds, ratio
from .figure import curve_figure, saved_figure, show_costs
from .metric_values import advantage, better_when
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


def settings_of(rows: Rows) -> List[Tuple]:
    """Definition and ``valid`` of the curves that rows hold, in their order.

    Args:
        rows (Sequence[dict]): Rows of one curve or several.
    """
    return list(
        dict.fromkeys(
            tuple(r.get(key) for key in SETTING) for r in rows
            if not is_clean(r)))


def rows_of(rows: Rows,
            definition: Optional[str],
            valid: Optional[bool] = False,
            names: Optional[Sequence[str]] = None) -> List[dict]:
    """The rows of one curve, and the clean host's.

    Args:
        rows (Sequence[dict]): Rows of several curves.
        definition (str, optional): Unit of the strength.
        valid (bool, optional): Whether the features are kept in their range.
            Defaults to False.
        names (Sequence[str], optional): Distortions, in the order that the
            rows get. Defaults to None: all, in theirs.
    """
    found = [
        r for r in rows
        if is_clean(r) or (r.get('definition'), r.get('valid')) ==
        (definition, valid)
    ]
    if names is None:
        return found
    return [r for r in found if is_clean(r)] + [
        r for name in names for r in found if r.get('distortion') == name
    ]


def strength_table(rows: Rows, metric: Optional[str] = None) -> str:
    """A table of one curve, strength across, distortions down.

    Args:
        rows (Sequence[dict]): Rows of one curve, see :func:`rows_of`.
        metric (str, optional): Name of the metric. Defaults to None:
            :func:`headline`.

    Returns:
        str: Markdown.
    """
    curves = summarize(rows, metric)
    asked = sorted({p.nrmse for points in curves.values() for p in points})
    lines = []
    for name, points in curves.items():
        cells = {p.nrmse: show(p.mean, p.std, p.num_seeds) for p in points}
        spread = np.mean([p.participation_ratio for p in points])
        lines.append([f'`{name}`', *(cells.get(x, '') for x in asked),
                      f'{spread:.2f}'])
    return markdown_table(
        ['distortion', *(f'{x:g}' for x in asked), 'participation ratio'],
        lines)


def relative_losses(rows: Rows,
                    metric: str) -> Dict[str, List[Tuple[float, ...]]]:
    """What each distortion costs, over the seeds.

    Args:
        rows (Sequence[dict]): Rows of one curve, see :func:`rows_of`.
        metric (str): Name of the metric. Of one that is better when higher
            the share of the clean metric that is lost, in percent; else the
            metric itself.

    Returns:
        dict[str, list[tuple]]: By distortion strength, mean and standard
        deviation.
    """
    clean = value_of(clean_metrics(rows), metric)
    result = {}
    for name, points in summarize(rows, metric).items():
        result[name] = [
            (p.nrmse, p.mean, p.std) if better_when(metric) == 'lower' else
            (p.nrmse, 100 * (1 - p.mean / clean), 100 * p.std / clean)
            for p in points
        ]
    return result


#: How curves are told apart; what is not here is thin and grey.
_STYLES = {
    'featjnd': dict(color='tab:red', lw=2.6, zorder=4),
    'gaussian': dict(color='black', lw=2.2, zorder=3),
    'level-gain': dict(color='tab:purple'),
    'static': dict(color='tab:blue'),
    'other-image': dict(color='tab:green'),
    'permuted': dict(color='tab:orange'),
    'fisher': dict(color='tab:red', ls='--'),
    'gradient-sensitivity': dict(color='tab:brown', ls='--'),
    'outside-boxes': dict(color='tab:cyan', ls='--'),
    'feature-energy': dict(color='tab:olive', ls='--'),
    'closed-form': dict(color='tab:pink', ls=':'),
    'lateral': dict(color='tab:gray', ls=':'),
    'null-space': dict(color='0.6', ls='-.'),
}


def draw_losses(rows: Rows, axes, metric: str,
                names: Optional[Dict[str, str]] = None) -> None:
    """Draw what each distortion costs against its strength, with the seeds'
    standard deviation; nats on a logarithmic axis.

    Args:
        rows (Sequence[dict]): Rows of one curve, see :func:`rows_of`.
        axes (matplotlib.axes.Axes): Axes to draw on.
        metric (str): See :func:`relative_losses`.
        names (dict[str, str], optional): How the legend calls the
            distortions. Defaults to None: as the rows do.
    """
    logarithmic = better_when(metric) == 'lower'
    strengths = set()
    for name, points in relative_losses(rows, metric).items():
        x, y, std = np.array(points).T
        strengths.update(x)
        style = dict(dict(color='0.6', lw=1.3), **_STYLES.get(name, {}))
        axes.plot(x, y, marker='o', ms=3.5,
                  label=(names or {}).get(name, name), **style)
        # on a logarithmic axis a band must not reach 0
        low = np.maximum(y - std, y / 10) if logarithmic else y - std
        axes.fill_between(x, low, y + std, color=style['color'], alpha=0.15,
                          lw=0)
    axes.set_xscale('log', base=2)
    ticks = sorted(strengths)
    axes.set_xticks(ticks, [f'{t:g}' for t in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    if logarithmic:
        axes.set_yscale('log')


def plot_losses(panels: Dict[str, Rows],
                path: Path,
                metric: str,
                names: Optional[Dict[str, str]] = None) -> None:
    """Write a picture of :func:`draw_losses`, curves side by side.

    Args:
        panels (dict[str, Sequence[dict]]): Rows of each curve, by its title.
        path (Path): Picture to write; its suffix gives the format.
        metric (str): See :func:`relative_losses`.
        names (dict[str, str], optional): See :func:`draw_losses`.
    """
    with saved_figure(path, 2.6 + 3.6 * len(panels), 4.0) as figure:
        several = figure.subplots(
            1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        known, asked = {}, set()
        for axes, (title, rows) in zip(several, panels.items()):
            draw_losses(rows, axes, metric, names)
            asked.update(r['nrmse'] for r in rows if r['nrmse'])
            axes.set_title(title, fontsize=10)
            axes.set_xlabel('RMS of the noise / standard deviation of the '
                            'channels', fontsize=8)
            for line in axes.get_lines():
                known.setdefault(line.get_label(), line)
        several[0].set_xticks(
            sorted(asked), [f'{x:g}' for x in sorted(asked)])
        several[0].set_ylabel(
            f'{metric} (nats)' if better_when(metric) == 'lower' else
            f'{metric} lost (%)')
        figure.legend(known.values(), known, fontsize=8,
                      loc='outside right center')
