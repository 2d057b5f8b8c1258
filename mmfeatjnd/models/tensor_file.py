"""Files of tensors with a description, as metrics and plans are kept."""
import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple, Union

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmfeatjnd.utils import atomic_path
from mmfeatjnd.version import __version__
from .hosts import CheckpointError

_KEY = 'mmfeatjnd'  # one entry: several have no fixed order in the file


class FileKind(NamedTuple):
    """A kind of files of the safetensors format: names, shapes and bytes, and
    no code that would run where they are read.

    Attributes:
        format (str): Marks the kind in the file.
        version (int): Raised where older readers would take a file for
            something else.
        noun (str): How errors name such a file.
        make (str): What an error advises where there is none.
        again (str): The same where it has another version.
    """
    format: str
    version: int
    noun: str
    make: str
    again: str

    def write(self, path: Union[str, Path], tensors: Dict[str, Tensor],
              about: Dict[str, Any], source: str) -> None:
        """Write a file, atomically.

        Args:
            path (str | Path): The file.
            tensors (dict[str, Tensor]): Contiguous, on the CPU.
            about (dict): All else, as JSON.
            source (str): How an error names what is written.

        Raises:
            CheckpointError: A value is NaN or infinite.
            WriteError: The file cannot be written.
        """
        _check_values(tensors, source)
        about = dict(about, format=self.format, format_version=self.version)
        with atomic_path(str(path)) as partial:
            # its own writer makes files that nobody else may read
            Path(partial).write_bytes(save(tensors, {_KEY: json.dumps(about)}))

    def read(self, path: Union[str, Path]
             ) -> Tuple[Dict[str, Any], Dict[str, Tensor]]:
        """What :meth:`write` was given.

        Raises:
            CheckpointError: It is no file of this kind and version, or a
                value is NaN or infinite.
        """
        try:
            with safe_open(str(path), 'pt') as file:
                about = json.loads((file.metadata() or {}).get(_KEY, '{}'))
                tensors = {k: file.get_tensor(k) for k in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f'{path} is no {self.noun}: {error}. {self.make}') from error
        if not isinstance(about, dict) or about.get('format') != self.format:
            raise CheckpointError(f'{path} is no {self.noun}. {self.make}')
        version = about.get('format_version')
        if version != self.version:
            raise CheckpointError(
                f'{path} has version {version} of the format (mmfeatjnd '
                f'{about.get("version")}), but this mmfeatjnd '
                f'({__version__}) reads version {self.version}. {self.again}')
        _check_values(tensors, path)
        return about, tensors


def _check_values(tensors: Dict[str, Tensor], source: object) -> None:
    broken = [k for k, v in tensors.items() if not v.isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{source}: NaN or infinite values in {broken[0]!r}. Check the '
            'checkpoint of the host and its input.')
