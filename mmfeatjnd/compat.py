"""Everything MMFeatJND knows about versions of the host libraries.

Two lines of packages provide the same modules: the maintained OneDL one
(``onedl-mmdetection``, ...) and the original one (``mmdet``, ...).
"""
import importlib
import os.path as osp
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

# module -> (distributions of the OneDL line, of the original line)
DISTRIBUTIONS = {
    'mmengine': (('onedl-mmengine', ), ('mmengine', 'mmengine-lite')),
    'mmcv': (('onedl-mmcv', ), ('mmcv', 'mmcv-lite', 'mmcv-full')),
    'mmdet': (('onedl-mmdetection', ), ('mmdet', )),
    'mmpretrain': (('onedl-mmpretrain', ), ('mmpretrain', )),
    'mmseg': (('onedl-mmsegmentation', ), ('mmsegmentation', )),
}
HOST_LIBRARIES = ('mmdet', 'mmpretrain', 'mmseg')
BUILD_MMCV = {
    'onedl': 'CFLAGS=-g0 pip install --no-build-isolation --no-cache-dir '
    '--force-reinstall --no-deps onedl-mmcv==2.3.6',
    'upstream': 'MMCV_WITH_OPS=1 pip install --no-build-isolation '
    '--no-cache-dir --force-reinstall --no-deps mmcv==2.1.0'
}


class EnvironmentProblem(RuntimeError):
    """The installed packages do not fit together; the text says how to fix
    it."""


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _release(text: str) -> tuple[int, ...]:
    """(0, 10, 7) of '0.10.7', (2, 13, 0) of '2.13.0+cpu'."""
    return tuple(int(n) for n in re.match(r'[\d.]*\d', text)[0].split('.'))


def _installed(module: str) -> list[str]:
    """The installed distributions that provide a module."""
    onedl, upstream = DISTRIBUTIONS[module]
    return [name for name in onedl + upstream if _version(name) is not None]


def host_line() -> str | None:
    """The line of packages that provides MMEngine.

    Returns:
        str | None: 'onedl', 'upstream', or None if MMEngine is not installed
        as a package. With both installed, the files are those of whichever
        came last; then 'onedl' is returned and :func:`check_environment`
        raises.
    """
    found = _installed('mmengine')
    if not found:
        return None
    return 'onedl' if found[0].startswith('onedl-') else 'upstream'


def setup_config_scopes() -> None:
    """Make ``mmfeatjnd::`` and ``mmseg::`` work in ``_base_`` of configs.

    MMEngine looks packages up in a fixed table. It lacks this package, and
    it names the distribution ``mmsegmentation``, which the OneDL line does
    not have. Runs on ``import mmfeatjnd``; does nothing without MMEngine, so
    that the functions of :mod:`mmfeatjnd.functional` need only torch.
    """
    if find_spec('mmengine') is None:
        return
    from mmengine.config.utils import MODULE2PACKAGE
    # Not a distribution, so MMEngine asks the import system for its folder.
    # For a distribution, the original line guesses site-packages, where an
    # editable install is not.
    MODULE2PACKAGE['mmfeatjnd'] = __name__
    if _version('mmsegmentation') is None and find_spec('mmseg') is not None:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def _check_lines() -> None:
    twice = {m: _installed(m) for m in DISTRIBUTIONS}
    twice = {m: names for m, names in twice.items() if len(names) > 1}
    if not twice:
        return
    listing = '; '.join(f'{m}: {" and ".join(names)}'
                        for m, names in twice.items())
    names = sorted(sum(twice.values(), []))
    raise EnvironmentProblem(
        f'Several installed packages provide the same module ({listing}). '
        'They overwrite each other\'s files. Remove all of them (pip '
        f'uninstall -y {" ".join(names)}), then install one line again: '
        'onedl-* (requirements/onedl.txt) or the original one '
        '(requirements/upstream.txt).')


def _check_setuptools() -> None:
    if find_spec('mmengine') is None:
        raise EnvironmentProblem(
            'MMEngine is not installed. Install one line of host libraries: '
            'pip install onedl-mmengine==0.10.12 (see requirements/onedl.txt) '
            'or pip install mmengine==0.10.7 (see requirements/upstream.txt).')
    from mmengine.version import __version__ as number
    if _release(number) <= (0, 10, 7) and find_spec('pkg_resources') is None:
        raise EnvironmentProblem(
            f'MMEngine {number} needs pkg_resources, which setuptools 82 '
            'removed. Run: pip install "setuptools<82"')
    # Every MMEngine Runner imports distutils, which left Python in 3.12.
    if sys.version_info >= (3, 12) and find_spec('setuptools') is None:
        raise EnvironmentProblem(
            'MMEngine\'s Runner needs distutils, which Python 3.12 only has '
            'through setuptools. Run: pip install "setuptools<82"')


def _check_torchvision() -> None:
    import torch
    if find_spec('torchvision') is None:
        return  # only MMPretrain needs it
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        raise EnvironmentProblem(
            f'torchvision {_version("torchvision")} does not match torch '
            f'{torch.__version__}: {error}. Install both from the same '
            'place, for example: pip install "torch===2.13.0" '
            '"torchvision===0.28.0" (three equals signs, so that no local '
            'build such as 2.13.0+cpu is taken).') from error


def _check_mmcv() -> None:
    line = host_line() or 'onedl'
    spec = find_spec('mmcv')
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentProblem(
            f'mmcv is not installed. Run: {BUILD_MMCV[line]}')
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError as error:
        if error.name != 'mmcv._ext':
            raise EnvironmentProblem(
                f'mmcv cannot be imported: {error}. Install the missing '
                f'package {error.name}.') from error
        raise EnvironmentProblem(
            f'mmcv in {osp.dirname(spec.origin)} has no compiled operators '
            '(mmcv._ext): it is mmcv-lite, or was built without a compiler. '
            'Remove mmcv-lite if it is there, then run: '
            f'{BUILD_MMCV[line]}') from error
    except ImportError as error:
        if '_ext' not in str(error):
            raise EnvironmentProblem(
                f'mmcv cannot be imported: {error}.') from error
        raise EnvironmentProblem(
            'mmcv\'s compiled operators do not load, most likely because '
            f'they were built for another torch: {error}. Compile them '
            f'again: {BUILD_MMCV[line]}') from error


def check_environment() -> None:
    """Check that the installed packages fit together.

    Imports torch, torchvision and mmcv, none of the host libraries.

    Raises:
        EnvironmentProblem: Both host lines are installed, mmcv is missing or
            has no usable operators, torchvision does not match torch, or a
            module that MMEngine needs is missing.
    """
    _check_lines()
    _check_setuptools()
    _check_torchvision()
    _check_mmcv()


def require(library: str) -> ModuleType:
    """Import a host library.

    Args:
        library (str): 'mmdet', 'mmpretrain' or 'mmseg'.

    Returns:
        ModuleType: The imported library.

    Raises:
        EnvironmentProblem: It is not installed, or fails to import.
    """
    if library not in HOST_LIBRARIES:
        raise ValueError(
            f'library must be one of {HOST_LIBRARIES}, got {library!r}')
    extra = host_line() or 'onedl'
    if find_spec(library) is None:
        raise EnvironmentProblem(
            f'{library} is not installed. Install the host libraries with '
            f'the extra "{extra}": after mmcv ({BUILD_MMCV[extra]}), run '
            f'pip install -e ".[{extra}]" in the checkout of MMFeatJND.')
    try:
        return importlib.import_module(library)
    except Exception as error:
        check_environment()  # a known cause has a better message
        raise EnvironmentProblem(
            f'{library} is installed but cannot be imported: '
            f'{type(error).__name__}: {error}. The versions that work '
            f'together are in requirements/{extra}.txt.') from error


def host_library(model: object) -> str | None:
    """The host library that a model comes from.

    Args:
        model (object): A model, also one extended by MMFeatJND.

    Returns:
        str | None: 'mmdet', 'mmpretrain', 'mmseg', or None for other models.
    """
    for cls in type(model).__mro__:
        package = cls.__module__.partition('.')[0]
        if package in HOST_LIBRARIES:
            return package
    return None


def installed_versions() -> dict[str, str]:
    """Versions of PyTorch and of the host libraries that are installed."""
    names = {'torch': 'torch', 'torchvision': 'torchvision'}
    for module in DISTRIBUTIONS:
        names.update({name: module for name in _installed(module)})
    return {
        name: _version(name)
        for name in names if _version(name) is not None
    }
