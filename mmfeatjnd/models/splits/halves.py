"""Which modules of a host each side of its split can do without."""
from contextlib import ExitStack, contextmanager
from typing import Iterator, List, Set

from torch import nn


class Passage:
    """Which modules a pass enters, and which of them it leaves.

    Args:
        host (nn.Module): The host.
    """

    def __init__(self, host: nn.Module) -> None:
        self.host = host
        self.entered: Set[nn.Module] = set()
        self.left: Set[nn.Module] = set()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch what runs inside; modules whose forward is replaced do
        not."""

        def enter(module, args):
            if 'forward' not in vars(module):
                self.entered.add(module)

        def leave(module, args, output):
            self.left.add(module)

        with ExitStack() as stack:
            for module in self.host.modules():
                stack.callback(module.register_forward_pre_hook(enter).remove)
                # before the hook of a split, which may end the pass
                stack.callback(module.register_forward_hook(
                    leave, prepend=True).remove)
            yield


def idle_modules(host: nn.Module, before: Passage,
                 after: Passage) -> dict:
    """What the two sides of a split do not run.

    A module that neither pass enters, such as the mask head for a picture
    without detections, or one whose weights another one uses, belongs to the
    receiver, and to the sender too where the module that holds it ran there.

    Args:
        host (nn.Module): The host.
        before (Passage): A pass that ended at the split.
        after (Passage): One that began there.

    Returns:
        dict[str, tuple[str]]: Of 'sender' and 'receiver' the names of the
        outermost modules that they can do without. Modules that are not under
        any of these are needed.

    Example:
        >>> host = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> before, after = Passage(host), Passage(host)
        >>> with before.watch():
        ...     features = host[0](torch.ones(1, 2))
        >>> with after.watch():
        ...     answer = host[2](host[1](features))
        >>> idle_modules(host, before, after)
        {'sender': ('1', '2'), 'receiver': ('0',)}
    """

    def any_in(module: nn.Module, found: Set[nn.Module]) -> bool:
        return any(m in found for m in module.modules())

    def sender(module: nn.Module, parent: nn.Module) -> bool:
        if any_in(module, before.entered):
            return False
        return parent not in before.entered or any_in(module, after.entered)

    def receiver(module: nn.Module, parent: nn.Module) -> bool:
        ran = [m for m in module.modules() if m in before.entered]
        return (bool(ran) and all(m in before.left for m in ran)
                and not any_in(module, after.entered))

    def outermost(is_idle, module: nn.Module, path: str) -> Iterator[str]:
        for name, child in module.named_children():
            if path + name == 'data_preprocessor':
                continue  # both sides read pictures, or blank ones
            if is_idle(child, module):
                yield path + name
            else:
                yield from outermost(is_idle, child, f'{path}{name}.')

    names: List[tuple] = [tuple(outermost(side, host, ''))
                          for side in (sender, receiver)]
    return dict(zip(('sender', 'receiver'), names))
