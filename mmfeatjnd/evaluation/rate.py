"""Rate curves: the task metric against bits, and at equal noise.

A row is a dict with ``policy``, ``protocol`` ('rate' or 'equal-noise'),
``bits`` (aimed at, per element) or ``noise_budget`` (NRMSE),
``nrmse_measured``, ``bits_per_element`` (entropy model, without side
information), ``coded_bits_per_element`` (bytes written, side information
included), ``seed`` and ``metrics``; the clean host is the row with policy
'clean'. A policy without a random part has one row where others have one for
each seed.

*The rate* is the coded bits per element, or the entropy model's where no
bytes were written.
"""
import math
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from scipy import stats

from .curve import Rows, clean_metrics, headline

PROTOCOLS = ('rate', 'equal-noise')


class RatePoint(NamedTuple):
    """One setting of one policy, over the seeds.

    Attributes:
        target (float): What was asked: bits per element, or NRMSE.
        bits (float): Bits per element, by the entropy model.
        coded_bits (float, optional): Bits per element, bytes written.
        nrmse (float): Measured.
        mean (float): The metric.
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


class Bounded(NamedTuple):
    """A number, or what is known of it.

    Attributes:
        value (float): The number, or the bound.
        relation (str): '' (equal), '<', '>', or '?' (nothing is known; the
            value is NaN).
    """
    value: float
    relation: str = ''

    @property
    def exact(self) -> bool:
        return not self.relation

    def at_least(self, goal: float) -> Optional[bool]:
        """Whether it is; None where the bound does not tell."""
        return self._compare(self.value >= goal, '>', '<')

    def at_most(self, goal: float) -> Optional[bool]:
        """Whether it is; None where the bound does not tell."""
        return self._compare(self.value <= goal, '<', '>')

    def _compare(self, holds: bool, helps: str, hurts: str) -> Optional[bool]:
        if self.relation == '?' or (holds and self.relation == hurts) or (
                not holds and self.relation == helps):
            return None
        return bool(holds)

    def __format__(self, spec: str) -> str:
        if self.relation == '?':
            return '?'
        sign = f'{self.relation} ' if self.relation else ''
        return sign + format(self.value, spec)


UNKNOWN = Bounded(math.nan, '?')


def has_coded_bits(rows: Rows) -> bool:
    """Whether bytes were written, so that the rate is of these."""
    return any(
        r.get('coded_bits_per_element') is not None for r in rows)


def _groups(rows: Rows, protocol: str,
            seed: Optional[int]) -> Dict[tuple, List[dict]]:
    """Rows by policy and setting."""
    by_policy = defaultdict(list)
    for row in rows:
        if row['policy'] != 'clean' and row['protocol'] == protocol:
            by_policy[row['policy']].append(row)
    groups = defaultdict(list)
    for policy, members in by_policy.items():
        if seed is not None:
            # a policy that was measured once is the same for every seed
            members = [r for r in members if r['seed'] == seed] or members
        rank: Dict[int, int] = defaultdict(int)
        for row in sorted(members, key=lambda r: r['bits_per_element']):
            if protocol == 'equal-noise':
                target = row['noise_budget']
            else:
                target = row.get('bits')
                if target is None:  # not kept: the i-th of every seed
                    target = float(rank[row['seed']])
                    rank[row['seed']] += 1
            groups[policy, target].append(row)
    return groups


def _point(target: float, group: Rows, metric: str) -> RatePoint:
    values = np.array([r['metrics'][metric] for r in group], float)
    coded = [r.get('coded_bits_per_element') for r in group]
    std = values.std(ddof=1) if len(group) > 1 and np.ptp(values) else 0.0
    ci95 = 0.0
    if len(group) > 1:
        t = stats.t.ppf(0.975, len(group) - 1)
        ci95 = t * std / math.sqrt(len(group))
    return RatePoint(
        target, float(np.mean([r['bits_per_element'] for r in group])),
        None if None in coded else float(np.mean(coded)),
        float(np.mean([r['nrmse_measured'] for r in group])),
        float(values.mean()), float(std), float(ci95), len(group))


def summarize(rows: Rows,
              metric: Optional[str] = None,
              protocol: str = 'rate',
              seed: Optional[int] = None) -> Dict[str, List[RatePoint]]:
    """Means over the seeds.

    Args:
        rows (Sequence[dict]): The rows.
        metric (str, optional): Defaults to None: :func:`headline`.
        protocol (str): 'rate' or 'equal-noise'. Defaults to 'rate'.
        seed (int, optional): Only this seed's rows; a policy that was
            measured once keeps its row. Defaults to None: all.

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


def bits_at_loss(points: Sequence[RatePoint],
                 clean: float,
                 loss: float = 0.01) -> Bounded:
    """The rate at which the metric has lost a relative share.

    Linear in the rate between the two measured points where the curve leaves
    the tolerated range for the first time when coming from the finest. So a
    curve that is not monotone gets the smallest rate above which every
    measured point stays within the loss; a lucky coarse point does not count.
    A metric that is NaN is a loss.

    Args:
        points (Sequence[RatePoint]): One policy's curve, by rising rate.
        clean (float): The clean metric.
        loss (float): Relative loss. Defaults to 0.01.

    Returns:
        Bounded: Bits per element. '<' the smallest rate if no point loses so
        much, '>' the largest if even the finest does. Unknown without points
        or for a clean metric that is not positive.
    """
    if not points or not clean > 0:
        return UNKNOWN
    limit = clean * (1 - loss)
    finer = None
    for point in reversed(points):
        if not point.mean >= limit:
            if finer is None:
                return Bounded(point.rate, '>')
            if not point.mean < limit:  # NaN: nothing to interpolate with
                return Bounded(finer.rate)
            share = (limit - point.mean) / (finer.mean - point.mean)
            return Bounded(point.rate + share * (finer.rate - point.rate))
        finer = point
    return Bounded(finer.rate, '<')


def _seeds(rows: Rows, policies: Sequence[str]) -> List[int]:
    return sorted({
        r['seed']
        for r in rows if r['policy'] in policies and r['protocol'] == 'rate'
    })


def bits_at_loss_by_seed(rows: Rows,
                         policy: str,
                         loss: float = 0.01,
                         metric: Optional[str] = None) -> Dict[int, Bounded]:
    """:func:`bits_at_loss` of the curve of each seed alone."""
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    return {
        seed: bits_at_loss(
            summarize(rows, metric, seed=seed)[policy], clean, loss)
        for seed in _seeds(rows, [policy])
    }


def savings(rows: Rows,
            policy: str = 'featjnd',
            reference: str = 'uniform',
            loss: float = 0.01,
            metric: Optional[str] = None,
            seed: Optional[int] = None) -> Bounded:
    """The share of the reference's bits that a policy saves at equal loss.

    ``1 - bits_at_loss(policy) / bits_at_loss(reference)``, from the means over
    the seeds. Where one of the two is only bounded, so is the saving.

    Args:
        rows (Sequence[dict]): The rows.
        policy (str): Defaults to 'featjnd'.
        reference (str): Defaults to 'uniform'.
        loss (float): Relative loss. Defaults to 0.01.
        metric (str, optional): Defaults to None: :func:`headline`.
        seed (int, optional): As in :func:`summarize`. Defaults to None.

    Returns:
        Bounded: At most 1; negative where more bits are needed. Unknown where
        a policy was not measured.
    """
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    curves = summarize(rows, metric, seed=seed)
    ours, theirs = (
        bits_at_loss(curves.get(name, ()), clean, loss)
        for name in (policy, reference))
    # fewer bits of ours, or more of theirs, are a larger saving
    signs = {
        {'<': '>', '>': '<'}.get(ours.relation, ours.relation),
        theirs.relation
    } - {''}
    if '?' in signs or len(signs) > 1 or not theirs.value > 0:
        return UNKNOWN
    return Bounded(1 - ours.value / theirs.value, signs.pop() if signs else '')


def savings_by_seed(rows: Rows,
                    policy: str = 'featjnd',
                    reference: str = 'uniform',
                    loss: float = 0.01,
                    metric: Optional[str] = None) -> Dict[int, Bounded]:
    """:func:`savings` of the curves of each seed alone."""
    return {
        seed: savings(rows, policy, reference, loss, metric, seed)
        for seed in _seeds(rows, [policy, reference])
    }


def reached(point: RatePoint, tolerance: float = 0.05) -> bool:
    """Whether a point of 'equal-noise' has the noise that was asked.

    A quantizer with a fixed number of levels cannot make little noise.

    Args:
        point (RatePoint): A point of 'equal-noise'.
        tolerance (float): Relative. Defaults to 0.05.
    """
    return abs(point.nrmse / point.target - 1) <= tolerance


class Comparison(NamedTuple):
    """Two policies at the same noise.

    Attributes:
        difference (float): Mean metric of the policy less the reference's.
        spread (float): Sum of the two standard deviations over the seeds.
    """
    difference: float
    spread: float

    @property
    def beats(self) -> bool:
        """Whether the difference exceeds the spread."""
        return self.difference > self.spread


def beats(rows: Rows,
          policy: str = 'featjnd',
          reference: str = 'uniform',
          least: float = 0.01,
          metric: Optional[str] = None,
          where: Optional[str] = None) -> Dict[float, Comparison]:
    """Compare two policies at equal noise.

    The policy is better beyond the seeds' spread where the difference of the
    means is larger than the sum of the two standard deviations: their one
    sigma intervals do not touch.

    Args:
        rows (Sequence[dict]): The rows.
        policy (str): Defaults to 'featjnd'.
        reference (str): Defaults to 'uniform'.
        least (float): Only budgets where ``where`` costs more than this share
            of the clean metric. Defaults to 0.01.
        metric (str, optional): Defaults to None: :func:`headline`.
        where (str, optional): A policy. Defaults to None: the reference.

    Returns:
        dict[float, Comparison]: By noise budget, of those that the policies
        reached.
    """
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    curves = {
        name: {p.target: p for p in points if reached(p)}
        for name, points in summarize(rows, metric, 'equal-noise').items()
    }
    ours, theirs, costs = (
        curves.get(name, {}) for name in (policy, reference, where
                                          or reference))
    return {
        budget: Comparison(point.mean - theirs[budget].mean,
                           point.std + theirs[budget].std)
        for budget, point in ours.items()
        if budget in theirs and budget in costs
        and clean - costs[budget].mean > least * clean
    }


def _value(point: RatePoint) -> str:
    text = f'{point.mean:.4g}'
    return text if point.num_seeds == 1 else f'{text} ± {point.std:.2g}'


def _at_loss(rows: Rows, policy: str, points: Sequence[RatePoint],
             clean: float, metric: str) -> str:
    """Bits at 1 % loss, with the seeds' spread where every seed has it."""
    text = f'{bits_at_loss(points, clean):.3f}'
    each = list(bits_at_loss_by_seed(rows, policy, metric=metric).values())
    if len(each) > 1 and all(b.exact for b in each):
        text += f' ± {np.std([b.value for b in each], ddof=1):.2g}'
    return text


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ['---'] * len(head), *lines]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows) + '\n'


def to_markdown(rows: Rows, metric: Optional[str] = None) -> str:
    """Tables of both protocols, as far as there are rows.

    Args:
        rows (Sequence[dict]): The rows.
        metric (str, optional): Defaults to None: :func:`headline`.

    Returns:
        str: Markdown: policies down, settings across.
    """
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    kind = 'coded bits' if has_coded_bits(rows) else 'bits (entropy model)'
    parts = [
        f'`{metric}`, clean {clean:.4g}. Mean ± standard deviation over the '
        f'seeds, in brackets the {kind} per element. Without ±: measured '
        'once.\n'
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
                cells[p.target] = f'{_value(p)} ({p.rate:.3f})'
                if not by_rate and not reached(p):
                    cells[p.target] = 'not reached'
            line = [name] + [cells.get(t, '') for t in targets]
            if by_rate:
                line.append(_at_loss(rows, name, points, clean, metric))
            lines.append(line)
        if by_rate:
            parts.append('At a rate: by the bits per element aimed at, before '
                         'side information. Last: the rate at a relative loss '
                         'of 1 %, interpolated.\n')
            head = ['policy', *(f'{t:g}' for t in targets), '1 % loss']
        else:
            parts.append('At equal noise: by the NRMSE of every image and '
                         'level.\n')
            head = ['policy', *(f'{t:g}' for t in targets)]
        parts.append(_table(head, lines))
    return '\n'.join(parts)


# The same policy looks the same in every picture.
_STYLES = {
    'featjnd': ('#d62728', 'o'),
    'permuted': ('#ff7f0e', 'v'),
    'uniform': ('#1f77b4', 's'),
    'clip-uniform': ('#2ca02c', 'D'),
    'water-filling': ('#9467bd', '^'),
    'range': ('#8c564b', 'X'),
    'gradient': ('#7f7f7f', 'P'),
}
_OTHERS = [('#17becf', '<'), ('#e377c2', '>'), ('#bcbd22', 'h'),
           ('#000000', '*'), ('#98df8a', 'd'), ('#c5b0d5', 'p')]


def _draw(rows: Rows, path: Path, metric: Optional[str],
          protocol: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter
    metric = metric or headline(rows)
    clean = clean_metrics(rows)[metric]
    by_rate = protocol == 'rate'
    figure = Figure(figsize=(7.2, 4.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axhline(clean, color='0.3', lw=1, label='clean')
    axes.axhline(0.99 * clean, color='0.3', lw=1, ls='--', label='1 % loss')
    others = iter(_OTHERS * 9)
    lowest = {True: clean, False: clean}  # of FeatJND, and of the others
    xy = []
    for name, points in summarize(rows, metric, protocol).items():
        if not by_rate:
            points = [p for p in points if reached(p)]
        points = [p for p in points if not math.isnan(p.mean)]
        if not points:
            continue
        x = np.array([p.rate if by_rate else p.target for p in points])
        y = np.array([p.mean for p in points])
        ci95 = np.array([p.ci95 for p in points])
        xy.extend(zip(x, y))
        strong = name.startswith('featjnd')
        lowest[strong] = min(lowest[strong], y.min())
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
    # What collapses must not flatten the rest, nor hide the line of 1 % loss.
    fall = clean - lowest[lowest[True] < clean]
    fall = min(max(fall, 0.03 * clean), (0.06 if by_rate else 0.12) * clean)
    axes.set_ylim(clean - 1.25 * fall, clean + 0.25 * fall)
    if by_rate:
        axes.set_xscale('log', base=2)
        seen = [x for x, y in xy if y > clean - 1.25 * fall]
        if seen:
            narrow = max(seen) < 4 * min(seen)  # show some power of 2
            margin = 1.5 if narrow else 1.15
            axes.set_xlim(min(seen) / margin, max(seen) * margin)
        number = FuncFormatter(lambda v, _: f'{v:g}')
        axes.xaxis.set_major_formatter(number)
        axes.xaxis.set_minor_formatter(NullFormatter())
        kind = 'coded' if has_coded_bits(rows) else 'entropy model'
        axes.set_xlabel(f'bits per element ({kind})')
    else:
        axes.set_xlabel('NRMSE of the features')
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


def plot(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Draw the metric against the rate, with 95 % confidence intervals.

    The axis ends a quarter further below than FeatJND falls, but shows a loss
    of 7.5 % at most (:func:`plot_noise`: 15 %); what falls further leaves the
    picture.

    Args:
        rows (Sequence[dict]): The rows.
        path (Path): The picture to write; its suffix gives the format.
        metric (str, optional): Defaults to None: :func:`headline`.
    """
    _draw(rows, path, metric, 'rate')


def plot_noise(rows: Rows, path: Path, metric: Optional[str] = None) -> None:
    """Draw the metric against the noise budget; see :func:`plot`. Budgets
    that a policy did not reach are left out."""
    _draw(rows, path, metric, 'equal-noise')
