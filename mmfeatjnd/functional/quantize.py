"""The way into the quantizer, and back: features to symbols to features."""
from typing import NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor

from .fused import symbols_and_values
from .quantized import QuantizedLevel
from .steps import Steps
from .symbols import from_symbols


class Allocation(NamedTuple):
    """How one level of features is quantized.

    Attributes:
        steps (Steps): The steps.
        rounding (float | Tensor, optional): rho in [0, 0.5], broadcastable to
            the feature: 0.5 rounds to the nearest symbol, less towards 0.
            Defaults to None: 0.5.
        bounds (Tensor, optional): (B, 2), low and high: what lies outside is
            clipped. Defaults to None: nothing is.
        deadzone (float): At least this many steps on either side of 0 become
            the symbol 0, in [0.5, inf). Defaults to 0.5: no more than
            rounding asks for.

    Example:
        >>> plain = Allocation(Steps(base=torch.tensor([0.5])))
        >>> plain.rounding is None, plain.deadzone
        (True, 0.5)
    """
    steps: Steps
    rounding: Union[float, Tensor, None] = None
    bounds: Optional[Tensor] = None
    deadzone: float = 0.5


@torch.no_grad()
def quantize(feature: Tensor,
             allocation: Allocation) -> Tuple[QuantizedLevel, Tensor]:
    r"""Uniform quantization of one level of features, mid-tread.

    .. math:: q = \mathrm{sign}(f)\,\lfloor |f| / \Delta + \rho \rfloor

    On CUDA one kernel reads the feature once and writes symbols and values,
    see :func:`mmfeatjnd.functional.fused.symbols_and_values`.

    Args:
        feature (Tensor): f, (B, C, H, W), (B, N, C) or (B, C), of any
            floating dtype.
        allocation (Allocation): The steps, and how to round and to clip.

    Returns:
        tuple[QuantizedLevel, Tensor]: What a receiver needs, with symbols in
        float32, NaN where feature or step is; and the values that it makes of
        them, float32: :func:`dequantize` before it casts to the dtype of the
        feature.

    Example:
        >>> feature = torch.tensor([[3.0, -4.0, 1.0, 0.5]])  # (B, C)
        >>> steps = Steps(base=torch.tensor([2.0]))
        >>> quantized, value = quantize(feature, Allocation(steps))
        >>> quantized.symbols
        tensor([[ 2., -2.,  1.,  0.]])
        >>> value
        tensor([[ 4., -4.,  2.,  0.]])
    """
    steps, rounding, bounds, deadzone = allocation
    x = feature.float()
    if bounds is not None:
        bounds = bounds.view(-1, 2, *[1] * (x.dim() - 1))
        x = x.clamp(bounds[:, 0], bounds[:, 1])
    step = steps.size(x)
    if rounding is None:
        rounding = 0.5
    symbols, value = symbols_and_values(x, step, rounding, deadzone)
    return QuantizedLevel(symbols, steps, feature.dtype), value


def dequantize(quantized: QuantizedLevel) -> Tensor:
    r"""The features that a receiver makes of symbols: :math:`q \Delta`.

    Args:
        quantized (QuantizedLevel): What :func:`quantize` returned.

    Returns:
        Tensor: The shape of the symbols, in the dtype of the feature.

    Example:
        >>> symbols = torch.tensor([[2.0, -2.0, 1.0]])
        >>> steps = Steps(base=torch.tensor([2.0]))
        >>> dequantize(QuantizedLevel(symbols, steps, torch.float16))
        tensor([[ 4., -4.,  2.]], dtype=torch.float16)
    """
    symbols, steps, dtype, _ = quantized
    return cast_to(from_symbols(symbols, steps.size(symbols)), dtype)


def cast_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in another dtype, clamped to what both dtypes hold: half a step
    above the largest half-precision number is no longer infinite.

    Args:
        value (Tensor): Values of any shape and floating dtype.
        dtype (torch.dtype): The dtype wanted.

    Returns:
        Tensor: The same shape; NaN stays.

    Example:
        >>> cast_to(torch.tensor([70000.0, 1.0]), torch.float16)
        tensor([6.5504e+04, 1.0000e+00], dtype=torch.float16)
    """
    limit = min(torch.finfo(dtype).max, torch.finfo(value.dtype).max)
    return value.clamp(-limit, limit).to(dtype)
