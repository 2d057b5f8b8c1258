"""``--cfg-options`` that also takes dicts, and ``--hook``."""
import argparse
import inspect
from copy import deepcopy
from typing import Any, Callable, List, Optional, Sequence

from mmengine.config import Config, DictAction
from mmengine.registry import HOOKS

from mmfeatjnd.apis.add_featjnd import add_featjnd
from mmfeatjnd.engine.hooks.operation_hook import OperationHook
from mmfeatjnd.utils import read_literal
from .console import UsageError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
HOOK_HINT = ("Write it as in a config, e.g. \"dict(type='mmfeatjnd."
             "PerturbationHook',nrmse=0.5)\"")


class CfgOptions(DictAction):
    """MMEngine's ``DictAction``, plus values written as in a config.

    ``model.neck.estimator="dict(type='mmfeatjnd.ConvEstimator')"``: values
    with a dict are read as Python literals; all others mean what they mean in
    MMEngine.
    """

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: Optional[str] = None) -> None:
        """See :class:`argparse.Action`."""
        try:
            for pair in values:
                if not pair.partition('=')[0] or '=' not in pair:
                    raise ValueError(f'{pair!r} is not of the form key=value')
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            raise argparse.ArgumentError(self, str(error)) from error

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        if 'dict(' not in val and '{' not in val:
            return DictAction._parse_iterable(val)
        try:
            return read_literal(val)
        except ValueError as error:
            raise ValueError(
                f'{error}. Write it as '
                "in a config, e.g. \"[dict(type='mmfeatjnd.PerturbationHook',"
                'nrmse=0.5)]".') from error


def hook_argument(text: str) -> dict:
    """The argument of ``--hook``.

    Args:
        text (str): A dict as in a config, with ``type``.

    Returns:
        dict: The hook's config.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    try:
        hook = read_literal(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{error}. {HOOK_HINT}') from error
    if not isinstance(hook, dict) or not isinstance(hook.get('type'), str):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no dict with the `type` of a hook. {HOOK_HINT}')
    return hook


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``.

    Args:
        parser (argparse.ArgumentParser): Edited in place.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='override fields of the config, as key=value. Lists are written '
        'key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]"; the quotes '
        'are needed and blanks are not allowed')


class FeatJNDOptions(CfgOptions):
    """Arguments of :func:`mmfeatjnd.apis.add_featjnd`, as key=value."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: Optional[str] = None) -> None:
        """See :class:`argparse.Action`."""
        known = list(inspect.signature(add_featjnd).parameters)[1:]
        for pair in values:
            if pair.partition('=')[0] not in known:
                raise argparse.ArgumentError(
                    self, f'{pair!r}: key=value is asked, with one of '
                    f'{", ".join(known)}')
        super().__call__(parser, namespace, values, option_string)


def add_featjnd_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--featjnd``.

    Args:
        parser (argparse.ArgumentParser): Edited in place.
    """
    parser.add_argument(
        '--featjnd',
        nargs='*',
        action=FeatJNDOptions,
        metavar='KEY=VALUE',
        help='put FeatJND on the host of a stock config: by default at '
        'split=backbone; also levels=0,1 or estimator="dict(type=...)", see '
        'mmfeatjnd.apis.add_featjnd. --cfg-options are merged after that')


def add_hook(parser: argparse.ArgumentParser) -> None:
    """Add ``--hook``.

    Args:
        parser (argparse.ArgumentParser): Edited in place.
    """
    parser.add_argument(
        '--hook',
        action='append',
        type=hook_argument,
        default=[],
        metavar='DICT',
        help='add a hook to custom_hooks of the config, after --cfg-options, '
        "as \"dict(type='mmfeatjnd.PerturbationHook',nrmse=0.5)\"; may be "
        'given several times')


def merge_options(cfg: Config, options: Optional[dict]) -> None:
    """Merge ``--cfg-options`` into a config.

    Args:
        cfg (Config): The config, edited in place.
        options (dict, optional): Dotted keys to values.

    Raises:
        UsageError: If the config has no place for one.
    """
    if not options:
        return
    try:
        # a copy: MMEngine takes the `_delete_` out of what it merges
        cfg.merge_from_dict(deepcopy(options))
    except (AttributeError, IndexError, KeyError, TypeError,
            ValueError) as error:
        raise UsageError(
            f'--cfg-options: {", ".join(options)} cannot be set in the config '
            f'({type(error).__name__}: {error})') from error


def drop_idle_persistence(cfg: Config) -> None:
    """Keep no workers where there are none.

    Torch refuses to, so that ``--cfg-options train_dataloader.num_workers=0``
    alone would fail.

    Args:
        cfg (Config): The config, edited in place.
    """
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and not loader.get('num_workers'):
            if loader.get('persistent_workers'):
                loader['persistent_workers'] = False


def append_hooks(cfg: Config, hooks: Sequence[dict]) -> None:
    """Append every ``--hook`` to ``custom_hooks``.

    Args:
        cfg (Config): The config, edited in place.
        hooks (Sequence[dict]): The hooks' configs.
    """
    if hooks:
        own: List[Any] = list(cfg.get('custom_hooks') or [])
        cfg.custom_hooks = own + deepcopy(list(hooks))


def check_hooks(cfg: Config, hooks: Sequence[dict]) -> None:
    """Find out whether the Runner can build every ``--hook``; none is built.

    Args:
        cfg (Config): The config before they are appended; its
            ``default_scope`` counts.
        hooks (Sequence[dict]): The hooks' configs.

    Raises:
        UsageError: A type is not registered, or does not take the arguments,
            or two hooks would operate on the features.
    """
    for hook in hooks:
        kwargs = dict(hook)
        kind = kwargs.pop('type')
        kwargs.pop('priority', None)  # taken by the Runner
        found = _hook_class(cfg, hook)
        if found is None:
            raise UsageError(f'--hook: no hook is registered as {kind!r}')
        try:
            inspect.signature(found).bind(**kwargs)
        except TypeError as error:
            raise UsageError(f'--hook: {kind}: {error}') from error
    if hooks:
        _check_operations(cfg, [*(cfg.get('custom_hooks') or []), *hooks])


def _hook_class(cfg: Config, hook: dict) -> Optional[Callable]:
    kind = hook.get('type')
    if not isinstance(kind, str):
        return kind
    with HOOKS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.get(kind)


def _check_operations(cfg: Config, hooks: Sequence[dict]) -> None:
    """A test runs one operation at the split."""
    operating = []
    for hook in hooks:
        found = _hook_class(cfg, hook)
        if inspect.isclass(found) and issubclass(found, OperationHook):
            operating.append(found.__name__)
    if len(operating) > 1:
        raise UsageError(
            f'--hook: {" and ".join(operating)} would operate on the features '
            'of one test: use one of them. Without the hooks of the config: '
            '--cfg-options "custom_hooks=[]"')
