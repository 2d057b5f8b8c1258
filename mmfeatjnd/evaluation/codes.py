"""Codes compared: the bits that they take where they cost the task alike.

A row is a code at one step, or a picture codec at one quality: ``policy``
(its name), ``split`` or, of pictures, ``place``, ``seed``, ``coded_bytes``
and ``bits_per_pixel``, of features ``coded_bits_per_element``, and ``draws``
of ``coded_bytes``, ``kl`` and metrics of the task: each a list of the value on
the images as they are and on every draw of the bootstrap over images, the same
in all rows. The clean host is the row with policy 'clean'; rows of protocol
'equal-noise' are left out.
"""
import math
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from .bootstrap import Interval
from .comparison import difference, log_crossings
from .crossing import Bounded, crossing
from .figure import saved_figure
from .rows import Rows, clean_metrics, is_clean, value_of

#: Split or place, and name of a code.
Key = Tuple[str, str]


class CodeCurve(NamedTuple):
    """A code at its steps, from the finest on, means over the seeds.

    Attributes:
        size (np.ndarray): (S, 1 + D), bytes of an image.
        costs (dict[str, np.ndarray]): Of ``kl`` and the metrics of the task
            (S, 1 + D).
        per_pixel (float): Bits per pixel of a byte an image.
        per_element (float, optional): Bits per element of one.
    """
    size: np.ndarray
    costs: Dict[str, np.ndarray]
    per_pixel: float
    per_element: Optional[float]


def _by_code(rows: Rows) -> Dict[Key, List[dict]]:
    groups: Dict[Key, List[dict]] = defaultdict(list)
    for row in rows:
        if not is_clean(row) and row.get('protocol') != 'equal-noise':
            key = str(row.get('split') or row['place']), row['policy']
            groups[key].append(row)
    return groups


def code_curves(rows: Rows) -> Dict[Key, CodeCurve]:
    """The curve of every code.

    Args:
        rows (Sequence[dict]): Rows.

    Returns:
        dict: By split (of pictures: by place) and name.
    """
    return {key: _curve(found) for key, found in _by_code(rows).items()}


def _curve(found: List[dict]) -> CodeCurve:
    by_seed: Dict[int, List[dict]] = defaultdict(list)
    for row in found:
        by_seed[row['seed']].append(row)
    ordered = [sorted(rows, key=lambda r: -r['coded_bytes'])
               for rows in by_seed.values()]
    # the i-th steps of the seeds are those of the same nats
    names = ordered[0][0]['draws']
    draws = {name: np.mean([[row['draws'][name] for row in rows]
                            for rows in ordered], 0) for name in names}
    first = ordered[0][0]
    element = first.get('coded_bits_per_element')
    return CodeCurve(
        draws.pop('coded_bytes'), draws,
        first['bits_per_pixel'] / first['coded_bytes'],
        None if element is None else element / first['coded_bytes'])


def size_at_nats(curve: CodeCurve, nats: float) -> Tuple[Bounded, ...]:
    """log2 of the bytes at which the answer is so far from the clean one.

    Interpolated linearly in the logarithms, between the steps.

    Args:
        curve (CodeCurve): The curve of a code.
        nats (float): Mean over the images.

    Returns:
        tuple[Bounded]: On the images as they are, and on every draw.
    """
    # as a strength, which rises with the cost
    found = log_crossings(-np.log2(curve.size), curve.costs['kl'], nats)
    opposite = {'<': '>', '>': '<', '': ''}
    return tuple(Bounded(-f.value, opposite[f.relation]) for f in found)


def size_at_loss(curve: CodeCurve, metric: str, clean: np.ndarray,
                 loss: float) -> Tuple[Bounded, ...]:
    """log2 of the bytes at which a metric has lost a relative share, see
    :func:`mmfeatjnd.evaluation.crossing`.

    Args:
        curve (CodeCurve): The curve of a code.
        metric (str): Name of the metric.
        clean (np.ndarray): (1 + D,), that of the clean host.
        loss (float): Share of the clean metric.

    Returns:
        tuple[Bounded]: On the images as they are, and on every draw.
    """
    x, y = np.log2(curve.size), curve.costs[metric]
    return tuple(
        crossing(list(zip(x[:, i], y[:, i])), clean[i], metric, loss,
                 rising=False) for i in range(len(clean)))


def times(ours: Tuple[Bounded, ...],
          theirs: Tuple[Bounded, ...]) -> Optional[Interval]:
    """Our bytes over theirs, with the 95 % interval of the paired bootstrap;
    None where one of them is only bounded.

    Args:
        ours (tuple[Bounded]): log2 of our bytes.
        theirs (tuple[Bounded]): log2 of theirs.
    """
    found = difference(ours, theirs)
    return None if found is None else Interval(*(2**x for x in found))


def bd_rate(ours: CodeCurve, theirs: CodeCurve) -> float:
    """Bjøntegaard's mean saving: the bytes that ours needs more than theirs
    at equal nats, percent, where both were measured.

    By the package ``bjontegaard`` with Akima's interpolation (Herglotz et
    al., arXiv 2304.12852), over the logarithm of nats.

    Args:
        ours (CodeCurve): The curve of a code.
        theirs (CodeCurve): That of what it is compared with.

    Returns:
        float: Negative where ours needs less; NaN where the curves have no
        nats in common, or one of them does not fall.
    """
    import bjontegaard
    curves = []
    for curve in (theirs, ours):
        size, kl = curve.size[::-1, 0], curve.costs['kl'][::-1, 0]
        kept = kl > 0
        quality = -np.log(kl[kept])
        if len(quality) < 2 or (np.diff(quality) <= 0).any():
            return math.nan
        curves += [size[kept], quality]
    if max(curves[1][0], curves[3][0]) >= min(curves[1][-1], curves[3][-1]):
        return math.nan
    return float(bjontegaard.bd_rate(
        *curves, method='akima', require_matching_points=False,
        min_overlap=0))


#: Codes of the picture itself.
PICTURES = ('jpeg', 'webp', 'avif')
_COLORS = ('#d62728', '#1f77b4', '#2ca02c', '#9467bd', '#ff7f0e', '#8c564b',
           '#e377c2', '#17becf', '#bcbd22')


def label_of(place: str, code: str) -> str:
    """What a code is called in tables and pictures.

    Example:
        >>> label_of('backbone.layer2', 'task'), label_of('full', 'webp')
        ('task, backbone.layer2', 'webp')
        >>> label_of('input', 'webp')
        'webp, as the host takes it'
        >>> label_of('tokens', 'one-step')
        'one-step, raw tokens'
    """
    if code not in PICTURES:
        return f'{code}, {"raw tokens" if place == "tokens" else place}'
    return code + ', as the host takes it' * (place == 'input')


def plot(rows: Rows, path: Union[str, Path], metric: str) -> None:
    """Nats, and the task metric, against bits per pixel.

    Args:
        rows (Sequence[dict]): Rows, with or without draws.
        path (str | Path): The picture; its suffix gives the format.
        metric (str): Name of the metric.
    """
    from matplotlib.ticker import LogLocator, NullFormatter
    clean = value_of(clean_metrics(rows), metric)
    colors = iter(_COLORS * 9)
    with saved_figure(path, 11, 4.6) as figure:
        left, right = figure.subplots(1, 2)
        for (place, code), found in _by_code(rows).items():
            seed = found[0]['seed']
            found = sorted((r for r in found if r['seed'] == seed),
                           key=lambda r: r['bits_per_pixel'])
            bits = [r['bits_per_pixel'] for r in found]
            style = dict(lw=1.3, ms=4, marker='o', label=label_of(place, code))
            if code in PICTURES:
                style.update(color=str(0.25 * PICTURES.index(code)),
                             ls='--' if place == 'input' else '-', marker='s')
            else:
                style.update(color=next(colors),
                             lw=2.2 if code.startswith('task') else 1.3)
            left.plot(bits, [r['metrics']['kl'] for r in found], **style)
            right.plot(bits, [value_of(r['metrics'], metric) for r in found],
                       **style)
        right.axhline(clean, color='0.3', lw=1)
        right.set_ylim(clean * (1 - 3 * 0.05), clean * 1.02)
        left.set_yscale('log')
        left.set_ylabel('nats of an image')
        right.set_ylabel(metric)
        for axes in (left, right):
            axes.set_xscale('log')
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter('{x:g}')
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel('bits per pixel, container included')
            axes.grid(alpha=0.3, which='both')
        right.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
