"""What runs on a GPU, against the same on the CPU.

Every test takes a ``device``. On the CPU it is a rehearsal, in the suite; with
``pytest -m cuda`` the same tests run on a GPU, and are skipped without one.
"""
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = pytest.param(
    'cuda',
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(
            not torch.cuda.is_available(), reason='needs a GPU')
    ])


@pytest.fixture(params=['cpu', CUDA])
def device(request):
    """The device under test, its arithmetic as near to the CPU's as it
    goes."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    former = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    cudnn.deterministic = True
    yield torch.device(request.param)
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = former


class _NoValues(TorchDispatchMode):
    """Raises where a value would be read from a device."""

    WAITING = ('_local_scalar_dense', 'nonzero', 'masked_select', '_unique2')

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.WAITING:
            raise RuntimeError(f'{func} waits for the device')
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_waiting(device):
    """A context in which nothing may wait for the device."""

    @contextmanager
    def context():
        if device.type == 'cpu':  # the operations that would wait
            with _NoValues():
                yield
            return
        torch.cuda.set_sync_debug_mode('error')
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode('default')

    return context


@pytest.fixture
def moved():
    """A nest of tensors and data samples on another device."""

    def move(x, device):
        if isinstance(x, (list, tuple)):
            return type(x)(move(v, device) for v in x)
        return x.to(device) if hasattr(x, 'to') else x

    return move


@pytest.fixture
def share_of_others():
    """The share of elements that differ by more than a part of their RMS."""

    def share(a, b, tolerance=1e-4):
        a, b = a.float().cpu(), b.float().cpu()
        scale = b.square().mean().sqrt().clamp_min(1e-12)
        return ((a - b).abs() > tolerance * scale).float().mean().item()

    return share
