"""Run the part of a host before its split once, and replay it."""
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mmfeatjnd.utils import ConfigError
from .reach import resolve_split


def prefix_candidates(neck) -> List[nn.Module]:
    """The outermost modules that do not contain the place of the operation;
    those that finish before it are the part before the split."""
    host = neck.host
    split = resolve_split(neck) if neck.hooked else [neck]
    names = [n for n, m in host.named_modules() if any(m is s for s in split)]
    outer = {
        n.rsplit('.', i)[0]
        for n in names for i in range(n.count('.') + 1)
    } - set(names)
    if not neck.hooked:
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


class PrefixReplay:
    """Record what runs before the split, and replay it.

    ``with replay.record(): clean pass`` keeps the outputs of the outermost
    modules that finish before the operation would first run; ``with
    replay.replay(): another pass on the same input`` returns them instead of
    computing. The host is frozen, so the results are the same. Functional
    code between the modules runs again; it is cheap. Outputs are copied both
    ways, since a host may go on to work on them in place. A prediction and a
    loss look at other regions or queries: what follows from these is computed
    in each pass.

    Args:
        neck (FeatJNDNeck): The host's; it knows its host.
    """

    def __init__(self, neck) -> None:
        self.host = neck.host
        self.neck = neck
        self.candidates = self._candidates()
        self.outputs: Optional[Dict[nn.Module, List[Any]]] = None
        self.shapes: Dict[nn.Module, List[tuple]] = {}

    def _candidates(self) -> List[nn.Module]:
        """The modules that are recorded, if they lie before the split."""
        names = {m: n for n, m in self.host.named_modules()}
        return [m for m in prefix_candidates(self.neck)
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

        stop.look = getattr(change, 'look', None)

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
            stack.enter_context(self.neck.changing(stop))
            yield
        if not seen and not self.neck.by_region:
            raise ConfigError(
                f"FeatJNDNeck: split='{self.neck.split}' was never reached: "
                f'{type(self.host).__name__} does not run that module, or '
                'does not pass its features through `neck` (an `extract_feat`'
                ' of its own). Choose another split point.')
        missing = sorted(set(self.neck.active_levels) - seen)
        if missing and not self.neck.by_region:
            raise ConfigError(
                f"FeatJNDNeck: split='{self.neck.split}' does not emit "
                f'level(s) {missing} of {self.neck.configured}. Set '
                'in_channels and levels to what it emits.')
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
