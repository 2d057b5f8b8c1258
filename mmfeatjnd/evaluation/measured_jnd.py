"""How well predicted thresholds agree with measured ones.

Rows of a result have ``unit`` ('token', 'channel-group' or 'image'),
``predictor``, ``nats``, ``count``, ``censored_share``, ``spearman`` and its
``spearman_interval``, ``spearman_within_image``, ``bias_log2`` and
``rmse_log2``. Those of the unit 'all images' compare one strength of noise,
``log2``, on all: the mean ``nats`` that are predicted with the mean
``measured_nats``.
"""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
from scipy import stats

from .bootstrap import image_weights, interval
from .figure import saved_figure
from .rows import markdown_table

UNITS = ('token', 'channel-group', 'image')
#: Thresholds of an image that a rank correlation within it needs.
_LEAST = 8


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where there is nothing to rank."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float('nan')
    return float(stats.spearmanr(a, b).statistic)


def scores(images: Sequence[dict], draws: int = 200) -> List[dict]:
    """The agreement of every predictor with what was measured.

    A threshold beyond what was searched counts as the end of the range in
    rank correlations, where it only has to be above or below the others, and
    is left out of the bias and of the error.

    Args:
        images (Sequence[dict]): ``image`` and ``thresholds`` of each, see
            :func:`mmfeatjnd.apis.measure_jnd`.
        draws (int): Draws of the bootstrap over images. Defaults to 200.

    Returns:
        list[dict]: The rows, by unit, tolerance and predictor.

    Example:
        >>> thresholds = [
        ...     dict(unit='token', nats=0.01, log2=value, relation='',
        ...          predicted=dict(fisher=value - 1)) for value in range(8)]
        >>> row, = scores([dict(image='a', thresholds=thresholds)])
        >>> row['spearman'], row['bias_log2'], row['rmse_log2']
        (1.0, 1.0, 1.0)
    """
    groups: Dict[tuple, List[tuple]] = defaultdict(list)
    for nth, image in enumerate(images):
        for row in image['thresholds']:
            for name, value in row['predicted'].items():
                groups[row['unit'], row['nats'], name].append(
                    (nth, row['log2'], value, row['relation'] != ''))
    order = sorted(groups, key=lambda k: (UNITS.index(k[0]), k[1]))
    return [
        _score(*key, groups[key], len(images), draws) for key in order
    ]


def _score(unit: str, nats: float, predictor: str, found: List[tuple],
           images: int, draws: int) -> dict:
    image, measured, predicted, censored = (
        np.array(column) for column in zip(*found))
    rows_of = [np.flatnonzero(image == i) for i in range(images)]
    within = [
        _spearman(measured[i], predicted[i]) for i in rows_of
        if (~censored[i]).sum() >= _LEAST
    ]
    drawn = [_spearman(measured, predicted)]
    for weights in image_weights(images, draws)[1:]:
        rows = np.concatenate([
            np.tile(i, int(n)) for i, n in zip(rows_of, weights)])
        drawn.append(_spearman(measured[rows], predicted[rows]))
    error = (measured - predicted)[~censored]
    return dict(
        unit=unit,
        predictor=predictor,
        nats=nats,
        count=len(found),
        censored_share=float(censored.mean()),
        spearman=drawn[0],
        spearman_interval=list(interval(drawn)[1:]),
        spearman_within_image=_mean(within),
        bias_log2=float(np.median(error)) if len(error) else float('nan'),
        rmse_log2=float(np.sqrt(np.mean(error**2))) if len(error) else float(
            'nan'))


def responses(images: Sequence[dict], least: float = 1e-3,
              most: float = 0.2) -> List[dict]:
    """What noise of one strength on all images costs, predicted and measured.

    Args:
        images (Sequence[dict]): ``response`` of each, see
            :func:`mmfeatjnd.apis.measure_jnd`.
        least (float): Least mean of the predicted nats that is of interest.
            Defaults to 0.001.
        most (float): Largest. Defaults to 0.2.

    Returns:
        list[dict]: Rows of the unit 'all images'.

    Example:
        >>> images = [dict(response=[dict(log2=0.0, measured=0.02 * i,
        ...                               predicted=dict(fisher=0.01))])
        ...           for i in range(3)]
        >>> row, = responses(images)
        >>> row['nats'], row['measured_nats']
        (0.01, 0.02)
    """
    rows = []
    for same in zip(*(image['response'] for image in images)):
        measured = float(np.mean([r['measured'] for r in same]))
        for name in same[0]['predicted']:
            nats = float(np.mean([r['predicted'][name] for r in same]))
            if least <= nats <= most:
                rows.append(dict(unit='all images', predictor=name,
                                 log2=same[0]['log2'], nats=nats,
                                 measured_nats=measured, count=len(same)))
    return rows


def _mean(values: Sequence[float]) -> Optional[float]:
    """None of nothing."""
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else None


def to_markdown(rows: Sequence[dict]) -> str:
    """The rows of :func:`scores` and of :func:`responses` as tables.

    Args:
        rows (Sequence[dict]): The rows.
    """

    def number(value, form: str = '.2f') -> str:
        return '' if value is None or np.isnan(value) else format(value, form)

    text = markdown_table([
        'noise on', 'nats', 'predictor', 'thresholds', 'beyond the range',
        'rank correlation', '95 %', 'within an image', 'bias, log2',
        'error, log2'
    ], [[
        row['unit'], f"{row['nats']:g}", f"`{row['predictor']}`",
        str(row['count']), f"{row['censored_share']:.0%}",
        number(row['spearman']),
        ' to '.join(filter(None, map(number, row['spearman_interval']))),
        number(row['spearman_within_image']), number(row['bias_log2'], '+.2f'),
        number(row['rmse_log2'])
    ] for row in rows if 'spearman' in row])
    known = [row for row in rows if 'measured_nats' in row]
    if not known:
        return text
    return text + '\n\nThe same noise on all images:\n\n' + markdown_table(
        ['noise, log2 of channel std', 'predictor', 'nats, predicted',
         'nats, measured'],
        [[f"{row['log2']:+.1f}", f"`{row['predictor']}`",
          f"{row['nats']:.3g}", f"{row['measured_nats']:.3g}"]
         for row in sorted(known, key=lambda r: r['predictor'])])


def plot(images: Sequence[dict],
         path: Union[str, Path],
         predictors: Sequence[str] = ('fisher', 'featjnd', 'static'),
         nats: float = 0.01) -> None:
    """Predicted against measured thresholds.

    Args:
        images (Sequence[dict]): See :func:`scores`.
        path (str | Path): The picture.
        predictors (Sequence[str]): A column each, as far as they are there.
        nats (float): The tolerance that is shown, or the nearest to it.
            Defaults to 0.01.
    """
    every = [t for i in images for t in i['thresholds']]
    known = {u: {t['nats'] for t in every if t['unit'] == u} for u in UNITS}
    shown = {u: min(found, key=lambda x: abs(np.log(x / nats)))
             for u, found in known.items() if found}
    every = [t for t in every if t['nats'] == shown[t['unit']]]
    units = list(shown)
    names = [n for n in predictors if any(n in t['predicted'] for t in every)]
    with saved_figure(path, 3.2 * len(names), 3.2 * len(units)) as figure:
        grid = figure.subplots(len(units), len(names), squeeze=False)
        for axes_row, unit in zip(grid, units):
            for axes, name in zip(axes_row, names):
                _scatter(axes, every, unit, name)
        figure.supxlabel('predicted JND, log2 of noise / channel std')
        figure.supylabel('measured JND, log2 of noise / channel std')


def _scatter(axes, thresholds: Sequence[dict], unit: str, name: str) -> None:
    points = [(t['predicted'][name], t['log2'], t['relation'] != '',
               t.get('level'), t['nats']) for t in thresholds
              if t['unit'] == unit and name in t['predicted']]
    if not points:
        axes.set_axis_off()
        return
    x, y, beyond = (np.array(c) for c in list(zip(*points))[:3])
    levels = [p[3] for p in points]
    for level in sorted(set(levels), key=lambda v: -1 if v is None else v):
        own = np.array([v == level for v in levels]) & ~beyond
        axes.plot(x[own], y[own], 'o', ms=3, alpha=0.5,
                  label=None if level is None else f'level {level}')
    axes.plot(x[beyond], y[beyond], 'x', ms=4, color='gray',
              label='beyond the range' if beyond.any() else None)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axes.plot(ends, ends, color='black', lw=0.8)
    rank = _spearman(x, y)
    rank = '' if np.isnan(rank) else f' (rank correlation {rank:.2f})'
    axes.set_title(f'{unit}, {points[0][4]:g} nats: {name}{rank}', fontsize=8)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=6)
    axes.grid(alpha=0.3)
