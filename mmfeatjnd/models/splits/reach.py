"""Reach a split inside a host, by forward hooks on its modules."""
import difflib
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator, List, Optional

from torch import Tensor, nn

from mmfeatjnd.utils import ConfigError


def resolve_split(neck) -> List[nn.Module]:
    """The modules of the host whose outputs are the levels of a split.

    Args:
        neck (FeatJNDNeck): It knows its host; ``neck.split`` names a module
            in the host's own terms. A ``ModuleList`` stands for its members.

    Returns:
        list[nn.Module]: One module, or the members of a list.

    Raises:
        ConfigError: There is no such module; the nearest names are given.
    """
    name, host = neck.split, neck.host
    if not neck.detached and (name == 'neck' or name.startswith('neck.')):
        name = f'neck.{name}'  # behind the FeatJND neck lies the host's own
    modules = dict(host.named_modules())
    if name not in modules:
        names = [
            n.replace('neck.neck', 'neck', 1) for n in modules
            if n and not n.startswith(('neck.estimators', 'featjnd_'))
        ]
        near = difflib.get_close_matches(neck.split, names, 3, 0.5)
        hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
        raise ConfigError(
            f"FeatJNDNeck: {type(host).__name__} has no module '{neck.split}' "
            f'to split at.{hint}')
    module = modules[name]
    return list(module) if isinstance(module, nn.ModuleList) else [module]


@contextmanager
def attached(neck) -> Iterator[None]:
    """Forward hooks on the modules of a split, removed on exit.

    Re-entrant, and nothing at all where the neck is a part of the host and
    sees the split itself.

    Args:
        neck (FeatJNDNeck): Gets the features.

    Raises:
        ConfigError: The host has no such split.
    """
    if not neck.hooked or neck.host is None or neck.attached:
        yield
        return
    modules = resolve_split(neck)
    if len(modules) > 1 and neck.levels and max(neck.levels) >= len(modules):
        raise ConfigError(
            f"FeatJNDNeck: split='{neck.split}' is a list of {len(modules)} "
            f'modules, but {neck.configured} are configured.')
    neck.emitted = _emitted(neck, modules)
    with ExitStack() as stack:
        if neck.by_region:
            _watch_regions(neck, stack)
        for level, module in enumerate(modules):

            def hook(module, inputs, output, level=level):
                return _apply_to_output(neck, output, level, len(modules))

            handle = module.register_forward_hook(hook)
            stack.callback(handle.remove)
        neck.attached = True
        stack.callback(setattr, neck, 'attached', False)
        yield


def _is_level(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 2


def _apply_to_output(neck, output: Any, level: int, modules: int = 1) -> Any:
    """The float tensors of the output of one of so many modules are its
    levels, in order."""
    if _is_level(output):
        # of a list of modules the others are still to come
        if modules == 1 or len(neck.active_levels) == 1:
            neck.look([(level, output)])
        return neck.apply_level(output, level)
    if not isinstance(output, (tuple, list)):
        raise ConfigError(
            f"FeatJNDNeck: the module at split='{neck.split}' returns "
            f'{type(output).__name__}; a tensor, tuple or list is needed.')
    neck.look(enumerate(filter(_is_level, output), level))
    new = []
    for item in output:
        if _is_level(item):
            item = neck.apply_level(item, level)
            level += 1
        new.append(item)
    if hasattr(output, '_make'):  # a named tuple
        return output._make(new)
    return type(output)(new)


def _emitted(neck, modules: List[nn.Module]) -> tuple:
    """Channels that the layers of each module emit. What a whole backbone or
    neck emits is NCHW by the libraries' convention."""
    if neck.split in ('backbone', 'neck'):
        return ()
    expected = neck.in_channels or [None] * len(modules)
    return tuple(map(_emitted_channels, modules, expected))


def _emitted_channels(module: nn.Module,
                      expected: Optional[int]) -> Optional[int]:
    """The expected channels if any layer of a module says it emits so many,
    for the last one to run need not be the last in order; else what the last
    one says."""
    found: List[int] = []
    names = ('out_channels', 'out_features', 'num_features', 'num_channels',
             'normalized_shape')
    for layer in reversed(list(module.modules())):
        for name in names:
            value = getattr(layer, name, None)
            value = value[-1] if isinstance(value, tuple) and value else value
            if isinstance(value, int):
                found.append(value)
                break
    return expected if expected in found else next(iter(found), None)


def _watch_regions(neck, stack: ExitStack) -> None:
    """Keep the image of every region that a RoI extractor cuts out."""

    def keep(module, args, kwargs):
        rois = kwargs['rois'] if 'rois' in kwargs else args[1]
        neck.row_images = rois[:, 0].long()

    for name, module in neck.host.named_modules():
        if name.endswith('roi_extractor') and not isinstance(
                module, nn.ModuleList):
            handle = module.register_forward_pre_hook(keep, with_kwargs=True)
            stack.callback(handle.remove)
    stack.callback(setattr, neck, 'row_images', None)
