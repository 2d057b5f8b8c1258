"""The sections of docs/benchmarks.md on thresholds that are measured."""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from mmfeatjnd.evaluation import markdown_table, measured_jnd

#: Least rank correlation with thresholds of tokens, the range of nats in
#: which they must be predicted for whole images, and the largest factor.
RANK, RANGE, FACTOR = 0.85, (0.005, 0.05), 1.5
TEXT = """\
Noise is put on one token, on a group of channels of a level, or on all of an
image, and its strength is bisected until the host's answer is so many nats
from the clean one. `fisher` is the closed form, by the Fisher information of
the very image; the others predict it by the maps of the sections above. Bias
(median) and error are log2 of measured over predicted noise, where the
threshold lies within what was searched: 2^-12 to 2^7 standard deviations of a
channel. The numbers are means over the seeds, each with an estimator, images
and tokens of its own; the 95 % intervals are of a bootstrap over the images of
one seed.
"""


def over_seeds(rows: Sequence[dict]) -> List[dict]:
    """One row for all seeds, with the means of their numbers."""
    groups: Dict[tuple, List[dict]] = defaultdict(list)
    for row in rows:
        strength = row['log2'] if 'log2' in row else row['nats']
        groups[row['unit'], strength, row['predictor']].append(row)
    return [
        {key: _mean([row[key] for row in same]) for key in same[0]}
        for same in groups.values()
    ]


def _mean(values: list):
    if isinstance(values[0], str):
        return values[0]
    if isinstance(values[0], list):
        return [_mean(list(v)) for v in zip(*values)]
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else float('nan')


def goals(rows: Sequence[dict]) -> List[Tuple[str, str, bool]]:
    """What was asked, what was measured, and whether it is met.

    Args:
        rows (Sequence[dict]): Of :func:`over_seeds`.
    """
    found = []
    for row in rows:
        if (row['unit'], row['predictor']) == ('token', 'fisher'):
            low, high = row['spearman_interval']
            found.append((
                f'rank correlation of `fisher` with the thresholds of tokens '
                f'at {row["nats"]:g} nats: at least {RANK:g}',
                f'{row["spearman"]:.2f} [{low:.2f}, {high:.2f}]',
                row['spearman'] >= RANK))
    for unit, of in (('all images', 'one noise on all images, mean nats'),
                     ('image', 'the threshold of each image, median')):
        factors = [
            row['measured_nats'] / row['nats'] if unit == 'all images' else
            # nats go with the square of the noise
            4**-row['bias_log2'] for row in rows
            if (row['unit'], row['predictor']) == (unit, 'fisher')
            and RANGE[0] * 0.999 <= row['nats'] <= RANGE[1] * 1.001
        ]
        if factors:
            found.append((
                f'measured over predicted nats of `fisher`, {of}, from '
                f'{RANGE[0]:g} to {RANGE[1]:g}: within a factor {FACTOR:g}',
                f'{min(factors):.2f} to {max(factors):.2f}',
                1 / FACTOR <= min(factors) and max(factors) <= FACTOR))
    return found


def section(name: str, result: dict, head: List[str],
            images: Optional[Path]) -> str:
    """The section of a result.

    Args:
        name (str): Its name.
        result (dict): It.
        head (list[str]): What the section begins with.
        images (Path, optional): Where to draw the picture; None to draw none.
    """
    rows = over_seeds([row for row in result['rows'] if 'unit' in row])
    if images is not None:
        measured_jnd.plot(result['images'], images / f'{name}.png')
    return '\n'.join([
        *head, TEXT,
        f'![Measured against predicted thresholds](images/{name}.png)\n',
        markdown_table(['goal', 'measured', 'met'], [
            [what, value, 'yes' if met else 'no']
            for what, value, met in goals(rows)]),
        measured_jnd.to_markdown(rows)
    ])
