"""What is measured or trained already, found again by all that matters."""
import hashlib
import json
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Union

from mmengine.config import Config

from mmfeatjnd.utils import atomic_path


def file_hash(path: Union[str, Path]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    path = Path(path)
    return _file_hash(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=None)
def _file_hash(path: Path, *state: int) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content(value: Any) -> Any:
    """What JSON can hold of a config, independent of where things lie.

    The work dir is left out. A checkpoint (``.pth``) or an estimator
    (``.safetensors``) becomes the hash of its file, a config file (``.py``)
    what it says, as far as they exist.

    Args:
        value (Any): A config, or a part of it.

    Returns:
        Any: Dicts with texts as keys, lists, texts, numbers.
    """
    if isinstance(value, Config):
        value = value.to_dict()
        value.pop('work_dir', None)
    if isinstance(value, dict):
        return {str(k): content(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [content(v) for v in value]
    if isinstance(value, str) and Path(value).is_file() and Path(
            value).suffix in ('.pth', '.safetensors', '.py'):
        if value.endswith('.py'):
            return content(Config.fromfile(value))
        return f'sha256:{file_hash(value)}'
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def keyed(path: Path, key: Any) -> Path:
    """A path of its own for a key: ``rows.json`` becomes
    ``rows_<12 digits>.json``.

    Args:
        path (Path): A file or folder.
        key (Any): Key of what is kept, as :func:`content` gives it.
    """
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    stem = path.name.removesuffix('.json')
    return path.with_name(f'{stem}_{digest}{path.name[len(stem):]}')


def write_json(path: Path, value: Any, **kwargs) -> None:
    """Write JSON, the whole of it or nothing.

    Args:
        path (Path): The file.
        value (Any): What to write.
        kwargs: Of ``json.dumps``.
    """
    text = json.dumps(value, **kwargs)
    with atomic_path(str(path)) as partial:
        Path(partial).write_text(text)


def cached(path: Path, key: Any, measure: Callable[[], Any]) -> Any:
    """What was measured under a key, or else measure it and keep it.

    Args:
        path (Path): The file; the key's digest is added to its name, so that
            another key leaves it alone.
        key (Any): All that the measurement depends on; goes through
            :func:`content` and is stored beside what was measured.
        measure (Callable): Gives what JSON can hold.

    Returns:
        Any: What was measured, as JSON holds it.
    """
    key = content(key)
    path = keyed(path, key)
    if path.exists():
        try:
            found = json.loads(path.read_text())
            if found['key'] == key:
                return found['measured']
            problem = 'it was measured otherwise'
        except (ValueError, KeyError, TypeError) as error:
            problem = f'it is cut or foreign: {error!r}'
        print(f'{path} is measured anew, as {problem}', flush=True)
    write_json(path, dict(key=key, measured=measure()))
    return json.loads(path.read_text())['measured']


@contextmanager
def alone(folder: Path):
    """Hold a folder against other processes, after waiting for them.

    Args:
        folder (Path): The folder; it is made.
    """
    import fcntl
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'Waiting for the process that uses {folder}', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
