"""Reach a named split inside a host, and run the part before it only once."""
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mmfeatjnd.utils import ConfigError, unwrapped
from .necks.featjnd_neck import FeatJNDNeck, resolve_split


def find_neck(model: nn.Module) -> FeatJNDNeck:
    """The FeatJND neck of a model, behind DDP, TTA and other wrappers.

    Raises:
        ConfigError: There is none, or more than one.
    """
    model = unwrapped(model)
    necks = [m for m in model.modules() if isinstance(m, FeatJNDNeck)]
    if len(necks) == 1:
        return necks[0]
    found = 'none' if not necks else len(necks)
    raise ConfigError(
        f'{type(model).__name__} must hold one FeatJNDNeck, but has {found}. '
        "Wrap the host's neck in the config: neck=dict(_delete_=True, "
        "type='mmfeatjnd.FeatJNDNeck', neck=_base_.model.neck, "
        'estimator=...).')


def _is_level(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.dim() >= 2


def _apply_to_output(neck: FeatJNDNeck, output: Any, level: int) -> Any:
    """The float tensors of a module's output are its levels, in order."""
    if _is_level(output):
        return neck.apply_level(output, level)
    if not isinstance(output, (tuple, list)):
        raise TypeError(
            f"FeatJNDNeck: the module at split='{neck.split}' returns "
            f'{type(output).__name__}; a tensor, tuple or list is needed.')
    new = []
    for item in output:
        if _is_level(item):
            item = neck.apply_level(item, level)
            level += 1
        new.append(item)
    if hasattr(output, '_make'):  # a named tuple
        return output._make(new)
    return type(output)(new)


def _emitted_channels(module: nn.Module, expected: int) -> Optional[int]:
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


def _watch_regions(host: nn.Module, neck: FeatJNDNeck, stack: ExitStack):
    """Keep the image of every region that a RoI extractor cuts out."""

    def keep(module, args, kwargs):
        rois = kwargs['rois'] if 'rois' in kwargs else args[1]
        neck.row_images = rois[:, 0].long()

    for name, module in host.named_modules():
        if name.endswith('roi_extractor') and not isinstance(
                module, nn.ModuleList):
            handle = module.register_forward_pre_hook(keep, with_kwargs=True)
            stack.callback(handle.remove)
    stack.callback(setattr, neck, 'row_images', None)


@contextmanager
def attached(host: nn.Module, neck: FeatJNDNeck) -> Iterator[None]:
    """Forward hooks on the modules of a named split, removed on exit.

    Re-entrant, and nothing at all for the splits 'backbone' and 'neck', which
    the neck itself sees.
    """
    if not neck.named_split or neck.attached:
        yield
        return
    modules = resolve_split(host, neck)
    if len(modules) > 1 and max(neck.levels) >= len(modules):
        raise ValueError(
            f"FeatJNDNeck: split='{neck.split}' is a list of {len(modules)} "
            f'modules, but levels={list(neck.levels)} and in_channels='
            f'{list(neck.in_channels)} are configured.')
    neck.emitted = tuple(map(_emitted_channels, modules, neck.in_channels))
    with ExitStack() as stack:
        if neck.by_region:
            _watch_regions(host, neck, stack)
        for level, module in enumerate(modules):

            def hook(module, inputs, output, level=level):
                return _apply_to_output(neck, output, level)

            handle = module.register_forward_hook(hook)
            stack.callback(handle.remove)
        neck.attached = True
        stack.callback(setattr, neck, 'attached', False)
        yield


def _prefix_candidates(host: nn.Module, neck: FeatJNDNeck) -> List[nn.Module]:
    """The outermost modules that do not contain the place of the operation;
    those that finish before it are the part before the split."""
    split = resolve_split(host, neck) if neck.named_split else [neck]
    names = [n for n, m in host.named_modules() if any(m is s for s in split)]
    outer = {
        n.rsplit('.', i)[0]
        for n in names for i in range(n.count('.') + 1)
    } - set(names)
    if not neck.named_split:
        outer.update(names)  # the host's own neck is inside ours
    containers = (nn.ModuleList, nn.ModuleDict)  # never called themselves

    def visit(module: nn.Module, path: str) -> Iterator[nn.Module]:
        for name, child in module.named_children():
            if f'{path}{name}' in outer or isinstance(child, containers):
                yield from visit(child, f'{path}{name}.')
            else:
                yield child

    return list(visit(host, ''))


def _copy(output: Any) -> Any:
    return tree_map(lambda x: x.clone()
                    if isinstance(x, Tensor) else x, output)


class Prefix:
    """Record what runs before the split, and replay it.

    ``with prefix.record(): clean pass`` keeps the outputs of the outermost
    modules that finish before the operation would first run; ``with
    prefix.replay(): another pass on the same input`` returns them instead of
    computing. The host is frozen, so the results are the same. Functional
    code between the modules runs again; it is cheap. Outputs are copied both
    ways, since a host may go on to work on them in place. A prediction and a
    loss look at other regions or queries: what follows from these is computed
    in each pass.

    Args:
        host (nn.Module): The host model.
        neck (FeatJNDNeck): Its FeatJND neck.
    """

    def __init__(self, host: nn.Module, neck: FeatJNDNeck) -> None:
        self.host = host
        self.neck = neck
        self.candidates = self._candidates()
        self.outputs: Optional[Dict[nn.Module, List[Any]]] = None
        self.shapes: Dict[nn.Module, List[tuple]] = {}

    def _candidates(self) -> List[nn.Module]:
        """The modules that are recorded, if they lie before the split."""
        names = {m: n for n, m in self.host.named_modules()}
        return [m for m in _prefix_candidates(self.host, self.neck)
                if not names[m].startswith('roi_head.')]

    def _finished(self, module: nn.Module, seen: set) -> bool:
        """Whether a module that returns now lies before the split."""
        return not seen

    def _keep(self, output: Any) -> Any:
        """What is kept of the output of a module."""
        return _copy(output)

    def _give(self, kept: Any) -> Any:
        """What is returned in its place."""
        return _copy(kept)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Keep the outputs of the part before the split. What changes the
        features at the split goes on doing so."""
        outputs: Dict[nn.Module, List[Any]] = {}
        shapes: Dict[nn.Module, List[tuple]] = {}
        seen = set()
        change = self.neck.change

        def stop(feature: Tensor, level: int) -> Tensor:
            seen.add(level)
            return change(feature, level) if change else feature

        def keep(module, args, kwargs, output):
            if self._finished(module, seen):
                outputs.setdefault(module, []).append(self._keep(output))
                shapes.setdefault(module, []).append(_shapes(args, kwargs))

        with ExitStack() as stack:
            for module in self.candidates:
                # before the hook of a named split, which runs the operation
                handle = module.register_forward_hook(
                    keep, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            stack.enter_context(attached(self.host, self.neck))
            stack.enter_context(self.neck.changing(stop))
            yield
        if not seen and not self.neck.by_region:
            raise RuntimeError(
                f"FeatJNDNeck: split='{self.neck.split}' was never reached: "
                f'{type(self.host).__name__} does not run that module, or '
                'does not pass its features through `neck` (an `extract_feat`'
                ' of its own). Choose another split point.')
        missing = sorted(set(self.neck.active_levels) - seen)
        if missing and not self.neck.by_region:
            raise RuntimeError(
                f"FeatJNDNeck: split='{self.neck.split}' does not emit "
                f'level(s) {missing} of in_channels='
                f'{list(self.neck.in_channels)}. Set in_channels and levels '
                'to what it emits.')
        self.outputs, self.shapes = outputs, shapes

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Return the recorded outputs instead of computing them."""
        with ExitStack() as stack:
            for module, outputs in self.outputs.items():
                if 'forward' in vars(module):  # somebody else's patch
                    stack.callback(setattr, module, 'forward', module.forward)
                else:
                    stack.callback(delattr, module, 'forward')
                module.forward = self._replayer(module, outputs)
            yield

    def _replayer(self, module: nn.Module, outputs: List[Any]) -> Callable:
        shapes = self.shapes.get(module, [None] * len(outputs))
        queue = iter(zip(shapes, outputs))
        compute = module.forward

        def forward(*args, **kwargs):
            # a host that slides over an image calls it again for other inputs
            for shape, output in queue:
                if shape in (None, _shapes(args, kwargs)):
                    return self._give(output)
                break
            return compute(*args, **kwargs)

        return forward

    def one_pass(self):
        """Record in the first pass over an input, replay in the others."""
        return self.record() if self.outputs is None else self.replay()


def _shapes(args: tuple, kwargs: dict) -> tuple:
    return tuple(x.shape for x in tree_leaves((args, kwargs))
                 if isinstance(x, Tensor))


def to_blank(output: Any) -> Any:
    """Floats on the meta device, which holds shapes and dtypes only; integer
    and boolean tensors, such as masks, on the CPU."""
    return tree_map(
        lambda x: x.detach().to('meta' if x.is_floating_point() else 'cpu')
        if isinstance(x, Tensor) else x, output)


def from_blank(output: Any, device: torch.device) -> Any:
    """NaN for every float that :func:`to_blank` left out, in no memory."""

    def fill(x):
        if not isinstance(x, Tensor) or not x.is_meta:
            return x.to(device) if isinstance(x, Tensor) else x
        nan = torch.full((), torch.nan, dtype=x.dtype, device=device)
        return nan.expand(x.shape)

    return tree_map(fill, output)


class Skeleton(Prefix):
    """The part before the split as shapes, where it runs somewhere else.

    ``with skeleton.record(): pass`` as for :class:`Prefix`; ``with
    skeleton.replay()`` returns NaN of the same shapes, so what is read from
    before the split, and was not sent, shows in the prediction.

    Args:
        host (nn.Module): The host model.
        neck (FeatJNDNeck): Its FeatJND neck.
    """

    def __init__(self, host: nn.Module, neck: FeatJNDNeck) -> None:
        super().__init__(host, neck)
        split = resolve_split(host, neck) if neck.named_split else []
        # what the operation replaces need not be computed
        self.replaced = {
            m for i, m in enumerate(split)
            if len(split) > 1 and i in neck.levels
        }

    def _candidates(self) -> List[nn.Module]:
        return _prefix_candidates(self.host, self.neck)

    def _finished(self, module: nn.Module, seen: set) -> bool:
        return not seen or module in self.replaced

    def _keep(self, output: Any) -> Any:
        return to_blank(output)

    def _give(self, kept: Any) -> Any:
        return from_blank(kept, next(self.host.parameters()).device)

    def state_dict(self) -> Dict[str, List[Any]]:
        """What was recorded, by the names of the modules."""
        names = {m: n for n, m in self.host.named_modules()}
        return {names[m]: outputs for m, outputs in self.outputs.items()}

    def load_state_dict(self, state: Dict[str, List[Any]]) -> None:
        """Take what :meth:`state_dict` returned in another process.

        Raises:
            ValueError: It names a module that is not before this split.
        """
        candidates = set(self.candidates)
        names = {
            n: m
            for n, m in self.host.named_modules() if m in candidates
        }
        if unknown := sorted(state.keys() - names):
            raise ValueError(f"'{unknown[0]}' does not lie before "
                             f"split='{self.neck.split}'")
        self.outputs = {names[n]: outputs for n, outputs in state.items()}
