"""Models by name: ours, and those that the host libraries list."""
import difflib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional

from mmengine.fileio import load

import mmfeatjnd
from mmfeatjnd.compat import HOST_LIBRARIES
from mmfeatjnd.utils import ConfigError
from mmfeatjnd.utils.download import fetch


class ZooModel(NamedTuple):
    """A model of an index in OpenMMLab's form.

    Attributes:
        name (str): Its name.
        config (Path): Its config file.
        weights (str, optional): Address of its checkpoint; of a FeatJND
            config that of its host, which the estimator is trained on.
        sha256 (str, optional): Of the checkpoint, where the index says it.
    """
    name: str
    config: Path
    weights: Optional[str]
    sha256: Optional[str]


def _root(package: str) -> Optional[Path]:
    """The folder of a package's index: installed, or the checkout."""
    if package == 'mmfeatjnd':
        own = Path(mmfeatjnd.__file__).parent
        places = own / '.mim', own.parent
    else:
        spec = find_spec(package)
        if spec is None:
            return None
        places = Path(spec.origin).parent / '.mim',
    return next((p for p in places if (p / 'model-index.yml').is_file()), None)


def _models(package: str) -> Iterator[ZooModel]:
    root = _root(package)
    if root is None:
        return
    for name in load(root / 'model-index.yml')['Import']:
        file = root / name
        if not file.is_file():
            continue
        found = load(file)
        for model in found.get('Models', ()) if isinstance(found, dict) else \
                found:
            more = model.get('Metadata') or {}
            yield ZooModel(
                model['Name'], root / model.get('Config', ''),
                model.get('Weights') or more.get('Host Weights'),
                more.get('SHA-256'))


@lru_cache(maxsize=None)
def _by_name(package: str) -> Dict[str, ZooModel]:
    models = [m for m in _models(package) if m.config.is_file()]
    # `mim` takes the names of configs, too
    return {**{m.config.stem: m for m in models},
            **{m.name: m for m in models}}


def find_model(name: str) -> ZooModel:
    """A model of the zoo of this package, or of a host library.

    Args:
        name (str): As ``model-index.yml`` has it, or that of the config; the
            names of this package, which is asked first, begin with
            ``featjnd_``.

    Returns:
        ZooModel: Its config and its weights.

    Raises:
        ConfigError: There is none of this name; with the nearest ones.

    Example:
        >>> find_model('featjnd_mask-rcnn_r50').config.name
        'mask-rcnn_r50.py'
        >>> find_model('yolox_tiny_8x8_300e_coco').config.parent.name
        'yolox'
    """
    known = []
    for package in ('mmfeatjnd', *HOST_LIBRARIES):
        models = _by_name(package)
        if name in models:
            return models[name]
        known += models
    near = difflib.get_close_matches(name, known, 3)
    raise ConfigError(
        f'no model is named {name!r}' +
        (f'. Near to it: {", ".join(near)}' if near else ''))


def get_checkpoint(name: str) -> str:
    """The checkpoint of a model of the zoo, downloaded where it is not there.

    Args:
        name (str): See :func:`find_model`.

    Returns:
        str: The file, see :func:`mmfeatjnd.utils.download.fetch`.

    Raises:
        ConfigError: There is no such model, or nobody offers its weights.
        OSError: They cannot be had; with what was tried.

    Example:
        >>> get_checkpoint('xyz')
        Traceback (most recent call last):
        mmfeatjnd.utils.configs.ConfigError: no model is named 'xyz'
    """
    model = find_model(name)
    if model.weights is None:
        raise ConfigError(f'the index has no weights of {name!r}: make them '
                          f'with {model.config}')
    return str(fetch(model.weights, model.sha256))
