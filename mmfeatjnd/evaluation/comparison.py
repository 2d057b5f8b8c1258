"""Two distortions of equal strength compared, with what can be said of it."""
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from .bootstrap import Interval, interval
from .crossing import Bounded
from .metric_values import better_when
from .rows import Rows, is_clean

#: What tells rows of one curve apart, beside the strength and the seed.
SETTING = ('definition', 'valid')


def setting_of(row: dict) -> Tuple:
    """What must be equal where two rows are compared."""
    return tuple(row.get(key) for key in SETTING) + (row['nrmse'], )


def clean_draws(rows: Rows, metric: str) -> np.ndarray:
    """A metric of the clean host, (1 + D,).

    Raises:
        ValueError: No row is that of the clean host with draws of it.
    """
    for row in rows:
        if is_clean(row) and metric in row.get('draws', ()):
            return np.asarray(row['draws'][metric], float)
    raise ValueError(
        f'no row is that of the clean host with draws of {metric!r}')


def losses(rows: Rows, metric: str) -> Dict[tuple, np.ndarray]:
    """What every distortion costs, on the images as they are and on every
    draw of the bootstrap.

    Args:
        rows (Sequence[dict]): Rows with ``draws``, see
            :meth:`mmfeatjnd.apis.curve.OperationTest.measure`; the clean
            row among them.
        metric (str): Name of the metric. Of one that is better when higher,
            the loss is the share of the clean metric that is lost; else the
            metric itself, such as ``kl``, which is 0 of the clean host.

    Returns:
        dict: By distortion and :func:`setting_of` (1 + D,), the mean over the
        seeds.

    Raises:
        ValueError: A share of the clean metric is asked, and no row is that
            of the clean host with draws of it.
    """
    higher = better_when(metric) == 'higher'
    clean = clean_draws(rows, metric) if higher else None
    found: Dict[tuple, List[np.ndarray]] = {}
    for row in rows:
        if is_clean(row) or metric not in row.get('draws', ()):
            continue
        values = np.asarray(row['draws'][metric], float)
        if higher:
            values = 1 - values / clean
        key = (row['distortion'], *setting_of(row))
        found.setdefault(key, []).append(values)
    return {key: np.mean(values, 0) for key, values in found.items()}


def compare(rows: Rows,
            metric: str,
            ours: str = 'featjnd',
            controls: Sequence[str] = (),
            reference: str = 'gaussian') -> List[dict]:
    """Our loss against the best of the controls at each strength.

    Args:
        rows (Sequence[dict]): See :func:`losses`.
        metric (str): Name of the metric.
        ours (str): Name of a distortion. Defaults to 'featjnd'.
        controls (Sequence[str]): Those of which the least loss counts, on the
            images as they are.
        reference (str): White noise. Defaults to 'gaussian'.

    Returns:
        list[dict]: For each setting and strength ``definition``, ``valid``,
        ``nrmse``, ``metric``, ``ours``, ``control`` and its name
        ``best_control``, ``reference``, ``difference`` (control minus ours),
        ``share`` (ours over control) and ``share_of_reference``, each but the
        names [value, low, high] with the 95 % interval of the paired
        bootstrap over images. A share of what costs nothing is infinite, and
        NaN where ours does not cost anything either.
    """
    found = losses(rows, metric)
    result = []
    for key, own in found.items():
        name, *setting = key
        if name != ours:
            continue
        against = {
            c: found[(c, *setting)]
            for c in controls
            if np.isfinite(found.get((c, *setting), [np.nan])[0])
        }
        if not against:
            continue
        best = min(against, key=lambda c: against[c][0])
        white = found.get((reference, *setting))
        result.append(
            dict(
                zip((*SETTING, 'nrmse'), setting),
                metric=metric,
                best_control=best,
                ours=list(interval(own)),
                control=list(interval(against[best])),
                reference=None if white is None else list(interval(white)),
                difference=list(interval(against[best] - own)),
                share=list(interval(_share(own, against[best]))),
                share_of_reference=None if white is None else list(
                    interval(_share(own, white)))))
    return sorted(result, key=lambda r: (str(r['valid']), r['nrmse']))


def _share(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of draws in which theirs costs nothing, a quotient would have the wrong
    sign or none."""
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.where(theirs > 0, ours / theirs,
                        np.where(ours > 0, np.inf, np.nan))


def tolerated_strength(rows: Rows, distortion: str, nats: float,
                       definition: str = 'channel',
                       valid: bool = False) -> Optional[Tuple[Bounded, ...]]:
    """The strength at which an answer is so far from the clean one.

    Interpolated between the measured strengths, linearly in the logarithms.

    Args:
        rows (Sequence[dict]): Rows with ``kl`` among their draws or metrics.
        distortion (str): Name of a distortion.
        nats (float): Mean over the images.
        definition (str): Of the strength. Defaults to 'channel'.
        valid (bool): See :class:`mmfeatjnd.models.Perturbation`. Defaults to
            False.

    Returns:
        tuple[Bounded], optional: log2 of the strength, on the images as they
        are and on every draw; None if it was not measured.
    """
    curves = {
        key[-1]: values
        for key, values in losses(rows, 'kl').items()
        if key[:-1] == (distortion, definition, valid)
    }
    if not curves:
        return None
    strengths = sorted(curves)
    return log_crossings(
        np.log2(strengths)[:, None], np.array([curves[s] for s in strengths]),
        nats)


def log_crossings(x: np.ndarray, costs: np.ndarray,
                  nats: float) -> Tuple[Bounded, ...]:
    """Where curves come to so many nats, linear in the logarithm of these.

    Args:
        x (np.ndarray): (S, 1) or (S, D), the settings from the mildest on,
            rising.
        costs (np.ndarray): (S, D), nats.
        nats (float): The target.

    Returns:
        tuple[Bounded]: The settings of the D curves; '<' the first and '>'
        the last where nats are beyond what was measured.

    Example:
        >>> log_crossings(np.array([[0.], [1.]]), np.array([[1.], [4.]]), 2.)
        (Bounded(value=0.5, relation=''),)
    """
    y = np.log2(np.maximum(costs, 1e-12))
    x = np.broadcast_to(x, y.shape)
    return tuple(
        _crossing(x[:, i], y[:, i], np.log2(nats)) for i in range(y.shape[1]))


def _crossing(x: np.ndarray, y: np.ndarray, target: float) -> Bounded:
    above = np.flatnonzero(y >= target)
    if not len(above):
        return Bounded(float(x[-1]), '>')
    i = above[0]
    if y[i] == target:
        return Bounded(float(x[i]))
    if i == 0:
        return Bounded(float(x[0]), '<')
    share = (target - y[i - 1]) / (y[i] - y[i - 1])
    return Bounded(float(x[i - 1] + share * (x[i] - x[i - 1])))


def gain_in_octaves(rows: Rows, distortion: str, reference: str, nats: float,
                    **setting) -> Optional[Interval]:
    """log2 of how many times the strength of a reference is tolerated at so
    many nats, see :func:`difference`.

    Args:
        rows (Sequence[dict]): See :func:`tolerated_strength`.
        distortion (str): Name of a distortion.
        reference (str): Name of another.
        nats (float): Mean over the images.
        **setting: Of :func:`tolerated_strength`.
    """
    both = [tolerated_strength(rows, name, nats, **setting)
            for name in (distortion, reference)]
    return None if None in both else difference(*both)


def difference(ours: Sequence[Bounded],
               theirs: Sequence[Bounded]) -> Optional[Interval]:
    """Difference of two numbers with the interval of its draws; None where
    one of the numbers is only bounded.

    Where a draw's number is, all that it may be counts, so that the interval
    may have no end.

    Args:
        ours (Sequence[Bounded]): The number, and that of every draw.
        theirs (Sequence[Bounded]): What is taken from it.
    """
    if not (ours[0].exact and theirs[0].exact):
        return None
    (low, high), (their_low, their_high) = (
        np.array([_range(b) for b in draws]).T for draws in (ours, theirs))
    return Interval(ours[0].value - theirs[0].value,
                    interval(low - their_high).low,
                    interval(high - their_low).high)


def volume_at_nats(rows: Rows, distortion: str, nats: float,
                   **setting) -> Optional[Interval]:
    """Bits per element that the noise of a distortion frees where it costs
    so many nats, with the interval of that strength; None where it has no
    volume, or the strength is only bounded.

    Args:
        rows (Sequence[dict]): See :func:`tolerated_strength`, with
            ``volume_bits``, which is interpolated like the strength.
        distortion (str): Name of a distortion.
        nats (float): Mean over the images.
        **setting: Of :func:`tolerated_strength`.
    """
    found = tolerated_strength(rows, distortion, nats, **setting)
    if found is None or not found[0].exact:
        return None
    wanted = (setting.get('definition', 'channel'),
              setting.get('valid', False))
    volumes: Dict[float, List[float]] = {}
    for row in rows:
        if (row['distortion'] == distortion
                and setting_of(row)[:-1] == wanted and 'volume_bits' in row):
            volumes.setdefault(row['nrmse'], []).append(row['volume_bits'])
    if not volumes:
        return None
    strengths = sorted(volumes)
    value, *draws = np.interp([f.value for f in found], np.log2(strengths),
                              [np.mean(volumes[s]) for s in strengths])
    return interval(np.array([value, *draws]))


def _range(number: Bounded) -> Tuple[float, float]:
    """Where a number may lie."""
    return (-np.inf if number.relation == '<' else number.value,
            np.inf if number.relation == '>' else number.value)
