"""What the tools write at their end."""
import json
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from mmfeatjnd.utils import atomic_path
from .console import UsageError

#: Of files with predictions.
DUMP_SUFFIXES = ('.pkl', '.pickle')


def save_results(rows: List[dict],
                 out: Path,
                 name: str,
                 table: Callable[[List[dict]], str],
                 pictures: Dict[str, Callable[[List[dict], str], None]],
                 metric: Optional[str] = None) -> None:
    """Write rows, their table and their pictures, and print the table.

    The rows come first, because they took the time: neither a wrong
    ``--metric`` nor a picture that fails must lose them.

    Args:
        rows (list[dict]): What was measured.
        out (Path): The folder.
        name (str): Stem of ``<name>.json`` with the rows and of ``<name>.md``
            with the table.
        table (Callable): Function from the rows to Markdown.
        pictures (dict): Name of a file to what draws the rows into it.
        metric (str, optional): The argument ``--metric``. Defaults to None:
            there is none.

    Raises:
        UsageError: The rows have no such metric.
        WriteError: A file cannot be written.
    """
    saved = [f'{name}.json', f'{name}.md', *pictures]
    with atomic_path(out / saved[0]) as path:
        Path(path).write_text(json.dumps(rows, indent=1))
    if metric is not None:
        check_metric(metric, rows, out / saved[0])
    text = table(rows)
    with atomic_path(out / saved[1]) as path:
        Path(path).write_text(text)
    for file, draw in pictures.items():
        with atomic_path(out / file) as path:
            draw(rows, path)
    print(f'\n{text}\nSaved to {out}/' + ', '.join(saved))


def check_metric(metric: str, rows: List[dict], saved: Path) -> None:
    """Raise a :class:`UsageError` unless there is such a metric to draw.

    Args:
        metric (str): The argument ``--metric``.
        rows (list[dict]): Rows of a curve.
        saved (Path): Where they are.
    """
    if metric not in rows[0]['metrics']:
        raise UsageError(f'--metric {metric}: the config measures '
                         f'{", ".join(rows[0]["metrics"])}. The rows are in '
                         f'{saved}')


def check_suffix(path: str, suffixes: Tuple[str, ...], what: str) -> None:
    """Raise a :class:`UsageError` unless ``--out`` names such a file.

    Args:
        path (str): The argument ``--out``.
        suffixes (tuple[str]): Allowed ends of its name.
        what (str): What is written.
    """
    if not path.endswith(suffixes):
        raise UsageError(
            f'--out {path}: {what} are written to a file whose name ends with '
            + ', '.join(suffixes))
