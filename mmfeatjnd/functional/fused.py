"""Quantization and dequantization in one pass over memory, on a GPU."""
import functools
import warnings
from typing import Tuple, Union

import torch
from torch import Tensor

from .symbols import from_symbols, to_symbols


def _both(feature: Tensor, step: Tensor, rounding: Union[float, Tensor],
          deadzone: float) -> Tuple[Tensor, Tensor]:
    symbols = to_symbols(feature, step, rounding, deadzone)
    return symbols, from_symbols(symbols, step)


@functools.lru_cache(maxsize=None)
def compiled():
    """The kernel that ``torch.compile`` makes, for any shape."""
    return torch.compile(_both, dynamic=True)


_broken = False


def symbols_and_values(feature: Tensor, step: Tensor,
                       rounding: Union[float, Tensor],
                       deadzone: float) -> Tuple[Tensor, Tensor]:
    """Symbols and their values.

    On CUDA one kernel of ``torch.compile`` reads the feature once and writes
    both; elsewhere, and where compiling fails, the plain functions run. The
    kernel's division may differ in its last bit, which matters only to a
    feature that lies exactly between two symbols.

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): See :func:`mmfeatjnd.functional.symbols.to_symbols`.
        rounding (float | Tensor): See there.
        deadzone (float): See there.

    Returns:
        tuple[Tensor]: Symbols and values, float32, the shape of ``feature``.
    """
    global _broken
    if feature.is_cuda and not _broken:
        try:
            return compiled()(feature, step, rounding, deadzone)
        except Exception as error:  # no Triton, or no compiler
            _broken = True
            warnings.warn(f'torch.compile failed, quantizing without a fused '
                          f'kernel: {error}')
    return _both(feature, step, rounding, deadzone)
