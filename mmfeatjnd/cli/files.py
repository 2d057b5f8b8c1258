"""Files that a tool was given, one by one or by their folder."""
from pathlib import Path
from typing import Iterator, Tuple, Union

from .console import UsageError


def find_files(source: Union[str, Path],
               suffixes: Tuple[str, ...]) -> Iterator[Tuple[Path, str]]:
    """A file, or the files of a folder and the folders in it, sorted.

    Args:
        source (str | Path): File or folder.
        suffixes (tuple[str]): Suffixes of the files in a folder, in lower
            case.

    Yields:
        tuple[Path, str]: The file, and its name below the folder.

    Raises:
        UsageError: There is none.
    """
    source = Path(source)
    if source.is_file():
        yield source, source.name
        return
    if not source.is_dir():
        raise UsageError(f'{source} does not exist')
    files = [
        f for f in sorted(source.rglob('*'))
        if f.suffix.lower() in suffixes and f.is_file()
        and not f.name.startswith('.')
    ]
    if not files:
        raise UsageError(f'{source} holds no file that ends with '
                         f'{", ".join(suffixes)}')
    for file in files:
        yield file, file.relative_to(source).as_posix()
