"""Uniform quantization: numbers to symbols, and symbols to numbers.

What is done to every element. :func:`mmfeatjnd.functional.quantize` does it to
a level of features, and returns all that a receiver needs.
"""
from typing import Union

import torch
from torch import Tensor

#: Symbols are clamped to +- this: they fit 16 bits. One that lies there is
#: saturated: how far beyond it would be is lost.
MAX_SYMBOL = (1 << 15) - 1


@torch.no_grad()
def to_symbols(feature: Tensor,
               step: Tensor,
               rounding: Union[float, Tensor] = 0.5,
               deadzone: float = 0.5) -> Tensor:
    r"""Symbols of a mid-tread uniform quantizer.

    .. math:: q = \mathrm{sign}(f)\,\lfloor |f| / \Delta + \rho \rfloor

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): Delta > 0, broadcastable.
        rounding (float | Tensor): rho in [0, 0.5]: 0.5 rounds to the nearest
            symbol, less rounds towards 0 and widens the zero bin to
            ``2 (1 - rho)`` steps. Defaults to 0.5.
        deadzone (float): At least this many steps on either side of 0 become
            the symbol 0, in [0.5, inf). Defaults to 0.5: no more than
            rounding asks for.

    Returns:
        Tensor: Float32 with integer values in +-32767, the shape of
        ``feature``; see :func:`saturated`. NaN where feature or step is.

    Example:
        >>> to_symbols(torch.tensor([[0.4, 1.6, -2.6]]), torch.tensor(1.0))
        tensor([[ 0.,  2., -3.]])
    """
    x = feature.float()
    # in place: on a CPU, fresh memory costs more than the arithmetic
    ratio = x.abs().div_(step)
    dropped = ratio < deadzone if deadzone > 0.5 else None
    symbols = ratio.add_(rounding).floor_()
    if dropped is not None:
        symbols.masked_fill_(dropped, 0.0)
    return symbols.clamp_(max=MAX_SYMBOL).copysign_(x)


def from_symbols(symbols: Tensor, step: Tensor) -> Tensor:
    """Values of symbols: the middle of their bins, ``q Delta``.

    Args:
        symbols (Tensor): Integer values, (B, ...).
        step (Tensor): Delta, broadcastable.

    Returns:
        Tensor: Float32, the shape of ``symbols``.

    Example:
        >>> from_symbols(torch.tensor([[0.0, 2.0, -3.0]]), torch.tensor(0.5))
        tensor([[ 0.0000,  1.0000, -1.5000]])
    """
    return symbols.float() * step


def saturated(symbols: Tensor) -> Tensor:
    """Share of the symbols of each image that lie at the end of their range.

    What was clamped there has an error of any size, which grows as the steps
    become finer. At the finest scale of
    :func:`mmfeatjnd.functional.scale_limits` nothing is.

    Args:
        symbols (Tensor): Integer values, (B, ...).

    Returns:
        Tensor: (B,), float32, in [0, 1]; NaN for an image with a NaN.

    Example:
        >>> saturated(torch.tensor([[2.0, 32767.0], [1.0, -4.0]]))
        tensor([0.5000, 0.0000])
    """
    # 1 at the end, else 0; comparing would make a NaN 0
    return (symbols.abs() / MAX_SYMBOL).floor().flatten(1).mean(1)
