"""What all curves share: rows, the clean host, means, and tables.

A row is a dict with ``metrics``, ``seed``, the name of what was done to the
features, and settings. A metric that a row lacks, or that is None or NaN, is
not defined there.
"""
import math
from typing import Dict, List, Sequence, Tuple

import numpy as np

Rows = Sequence[dict]


def is_clean(row: dict) -> bool:
    """Whether a row is that of the host as it is."""
    return 'clean' in (row.get('distortion'), row.get('policy'))


def clean_metrics(rows: Rows) -> Dict[str, float]:
    """Metrics of the host without a distortion or quantization.

    Raises:
        ValueError: No row is that of the clean host.
    """
    for row in rows:
        if is_clean(row):
            return row['metrics']
    raise ValueError('no row is that of the clean host')


def value_of(metrics: dict, metric: str) -> float:
    """A metric, or NaN where it is not defined."""
    value = metrics.get(metric)
    return math.nan if value is None else float(value)


def headline(rows: Rows) -> str:
    """What the curves show: the first metric of the clean row that is
    defined, or the first one if none is.

    Raises:
        ValueError: The clean row has no metric.
    """
    metrics = clean_metrics(rows)
    if not metrics:
        raise ValueError("the clean host has no metric: none of test_"
                         "evaluator's results is one number")
    defined = [m for m in metrics if not math.isnan(value_of(metrics, m))]
    return (defined or list(metrics))[0]


def of_seed(rows: Rows, seed: int) -> List[dict]:
    """The rows of one seed; what was measured once is the same for every
    seed.

    Args:
        rows (Sequence[dict]): Rows of one distortion or policy.
        seed (int): The seed.
    """
    return [r for r in rows if r['seed'] == seed] or list(rows)


def mean_and_std(values: Sequence[float]) -> Tuple[float, float]:
    """Mean and sample standard deviation, 0 for one value; both NaN where one
    of the values is."""
    array = np.asarray(values, float)
    if np.isnan(array).any():
        return math.nan, math.nan
    # equal values: no rounding error
    spread = array.std(ddof=1) if np.ptp(array) > 0 else 0.0
    return float(array.mean()), float(spread)


def show(mean: float, std: float, number: int) -> str:
    """A mean with its standard deviation, as it stands in a table.

    Args:
        mean (float): Mean over the seeds.
        std (float): Standard deviation.
        number (int): How many seeds; a single one has no deviation.
    """
    if math.isnan(mean):
        return 'not defined'
    return f'{mean:.4g}' + (f' ± {std:.2g}' if number > 1 else '')


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head (Sequence[str]): The titles.
        lines (Sequence[Sequence[str]]): The cells, line by line.
    """
    rows = ['| ' + ' | '.join(row) + ' |' for row in (head, *lines)]
    rows.insert(1, '|' + '---|' * len(head))
    return '\n'.join(rows) + '\n'
