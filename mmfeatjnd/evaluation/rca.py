"""The curve of DMV-JND: RCA against PSNR."""
from pathlib import Path
from typing import Sequence

from .figure import curve_figure


def plot_rca(rows: Sequence[dict], path: Path) -> None:
    """Draw RCA against PSNR, one line a series.

    Args:
        rows (Sequence[dict]): Rows with ``series``, the name of the line, and
            ``metrics`` with 'rca/mean' in percent and 'psnr' in dB.
        path (Path): The picture to write; its suffix gives the format.
    """
    with curve_figure(path, 'PSNR of the distorted image (dB, range 255)',
                      'RCA, mean of the tasks (%)') as axes:
        for name in dict.fromkeys(row['series'] for row in rows):
            points = sorted(
                (row['metrics']['psnr'], row['metrics']['rca/mean'])
                for row in rows if row['series'] == name)
            axes.plot(*zip(*points), marker='o', ms=4, label=name)
