"""Checkpoints without the code that they may hold.

A checkpoint is a pickle, and a pickle can run any program when it is read.
PyTorch's ``weights_only`` reads tensors and plain values alone; what MMEngine
adds to a training checkpoint, its log and the state of its schedules, is put
on the list here, and nothing else. A file that needs more is refused, on both
lines of the host libraries (OneDL's loader would read it anyway).
"""
import functools
import os
import pickle
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Tuple

import torch

#: PyTorch's own variable to read files whatever they hold.
TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


class UnsafeCheckpoint(ValueError):
    """A file that cannot be read without running code that it holds."""


def trusted() -> bool:
    """Whether the user has said that files may run code."""
    return os.environ.get(TRUST, '').lower() in ('1', 'y', 'yes', 'true')


def _owners() -> Dict[type, Tuple[str, ...]]:
    """Classes of MMEngine whose state names their own functions, and these:
    its log, and a schedule."""
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import (
        OneCycleParamScheduler,
    )
    return {HistoryBuffer: ('min', 'max', 'current', 'mean'),
            OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear')}


def _function_of(owner: Any, name: str) -> Any:
    """In place of ``getattr``, by which a pickle could reach everything."""
    if not isinstance(owner, type) or name not in _owners().get(owner, ()):
        raise pickle.UnpicklingError(f'{owner}.{name} is not on the list')
    return getattr(owner, name)


def _allowed() -> List[Any]:
    """What else than tensors and plain values is in a training checkpoint."""
    import numpy as np
    core = getattr(np, '_core', None) or np.core
    kinds = {type(np.dtype(t)) for t in (
        np.bool_, np.int32, np.int64, np.uint8, np.uint32, np.float32,
        np.float64)}
    # under both names that NumPy has had for them
    functions = [(f, f'numpy.{c}.multiarray.{f.__name__}')
                 for f in (core.multiarray._reconstruct,
                           core.multiarray.scalar)
                 for c in ('core', '_core')]
    return [*_owners(), np.ndarray, np.dtype, *kinds, *functions,
            (_function_of, 'builtins.getattr')]


@contextmanager
def safe_loading() -> Iterator[None]:
    """Inside, ``torch.load`` reads tensors and plain values, whatever it is
    asked for.

    Raises:
        UnsafeCheckpoint: A file holds something else.
    """
    if trusted():
        yield
        return
    load = torch.load

    @functools.wraps(load)
    def careful(f, *args, **kwargs):
        kwargs.update(weights_only=True)
        kwargs.pop('pickle_module', None)
        with _only(_allowed):
            try:
                return load(f, *args, **kwargs)
            except pickle.UnpicklingError as error:
                if 'invalid load key' in str(error):  # no pickle at all
                    raise
                raise UnsafeCheckpoint(
                    'it cannot be read without running code that it holds '
                    f'({_reason(error)}). If you know where it comes from and '
                    f'trust it, set {TRUST}=1 in the environment') from error

    torch.load = careful
    try:
        yield
    finally:
        torch.load = load


def _reason(error: Exception) -> str:
    """What PyTorch says, without its advice."""
    for line in str(error).splitlines():
        if 'GLOBAL' in line or 'global' in line:
            return line.strip().partition('Unsupported ')[2] or line.strip()
    return str(error).strip().splitlines()[-1]


def _only(allowed: Callable[[], List[Any]]) -> ContextManager:
    """Inside, this is what PyTorch reads beside weights: others may have put
    ``getattr`` itself on the list."""
    serialization = torch.serialization
    if not hasattr(serialization, 'safe_globals'):  # before torch 2.5
        return nullcontext()
    stack = ExitStack()
    before = serialization.get_safe_globals()
    stack.callback(serialization.add_safe_globals, before)
    stack.callback(serialization.clear_safe_globals)
    serialization.clear_safe_globals()
    serialization.add_safe_globals(allowed())
    return stack


def load_safely() -> None:
    """Let MMEngine read all checkpoints of this process by
    :func:`safe_loading`, wherever they come from."""
    from mmengine.runner import CheckpointLoader
    for prefix, loader in CheckpointLoader._schemes.items():
        if not getattr(loader, 'is_safe', False):
            CheckpointLoader._schemes[prefix] = _careful_loader(loader)


def _careful_loader(loader: Callable) -> Callable:

    @functools.wraps(loader)
    def careful(*args, **kwargs):
        with safe_loading():
            return loader(*args, **kwargs)

    careful.is_safe = True
    return careful
