"""Quantization and its code length with a gradient, for training."""
from typing import Union

import torch
from torch import Tensor

from .entropy import as_samples, fit_entropy_model, symbol_bits
from .noise import uniform_noise
from .quantized import QuantizedLevel
from .steps import make_steps
from .symbols import to_symbols


def straight_through(feature: Tensor,
                     step: Tensor,
                     rounding: Union[float, Tensor] = 0.5,
                     sharpness: float = 10.0) -> Tensor:
    r"""Symbols whose gradient is that of a soft staircase.

    Forward: the symbols of :func:`mmfeatjnd.functional.quantize`. Backward:
    the gradient with respect to feature, step and rounding of

    .. math:: \lfloor y \rfloor + \sigma(\kappa (y - \lfloor y \rfloor - 1 +
        \rho)), \quad y = |f| / \Delta

    which, unlike the plain straight-through estimator (Bengio et al., arXiv
    1308.3432; Esser et al., arXiv 1902.08153, for the step), sees the
    threshold. Ours.

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): Delta > 0, broadcastable.
        rounding (float | Tensor): rho in [0, 0.5], broadcastable. Defaults to
            0.5: to the nearest symbol.
        sharpness (float): kappa. Defaults to 10.

    Returns:
        Tensor: Float32 with integer values, the shape of ``feature``.

    Example:
        >>> feature = torch.tensor([[0.9, -2.2]], requires_grad=True)
        >>> symbols = straight_through(feature, torch.tensor(1.0))
        >>> symbols.detach()
        tensor([[ 1., -2.]])
        >>> grad, = torch.autograd.grad(symbols.sum(), feature)
        >>> grad.round(decimals=2)  # near a threshold it is steep
        tensor([[0.1800, 0.4500]])
    """
    hard = to_symbols(feature, step, rounding)
    ratio = feature.float().abs() / step
    low = ratio.detach().floor()
    soft = low + (sharpness * (ratio - low - 1 + rounding)).sigmoid()
    soft = soft.copysign(feature.detach())
    return soft + (hard - soft).detach()


def additive_noise(feature: Tensor,
                   step: Tensor,
                   keys: Tensor,
                   stream: int = 0) -> Tensor:
    """The feature plus uniform noise of one step: the usual differentiable
    stand-in for quantization (Balle et al., arXiv 1611.01704).

    Args:
        feature (Tensor): (B, ...).
        step (Tensor): Delta > 0, broadcastable.
        keys (Tensor): (B,), int64, keys of the noise.
        stream (int): Stream of the noise. Defaults to 0.

    Returns:
        Tensor: Float32, the shape of ``feature``.

    Example:
        >>> keys = torch.tensor([0, 1])
        >>> feature = torch.zeros(2, 8, 4, 4)
        >>> noisy = additive_noise(feature, torch.tensor(0.5), keys)
        >>> noisy.shape, bool(noisy.abs().max() <= 0.25)
        (torch.Size([2, 8, 4, 4]), True)
    """
    noise = uniform_noise(keys, feature.shape[1:], stream)
    return feature.float() + noise * step / 2


def soft_code_length(magnitude: Tensor, feature: Tensor,
                     step: Tensor) -> Tensor:
    """Code length with a gradient, for steps of any value; see
    :func:`mmfeatjnd.functional.code_length`.

    The model is fitted to the current symbols without a gradient, from steps
    in classes of half an octave. What a symbol costs is differentiated with
    respect to its step; and a change of ``magnitude``, whose gradient is that
    of :func:`straight_through`, costs what lies between the two symbols on
    either side of the nearest threshold.

    Args:
        magnitude (Tensor): |q| from ``straight_through(feature.abs(), ...)``,
            (B, C, H, W), (B, N, C) or (B, C).
        feature (Tensor): What was quantized, the same shape.
        step (Tensor): The steps, broadcastable.

    Returns:
        Tensor: (B,), float32, bits of each image. NaN for an image with a
        NaN or an infinite value.

    Example:
        >>> feature = torch.randn(2, 8, 4, 4)
        >>> step = torch.ones(2, 1, 1, 1, requires_grad=True)
        >>> magnitude = straight_through(feature.abs(), step)
        >>> bits = soft_code_length(magnitude, feature, step)
        >>> bits.shape, bits.requires_grad
        (torch.Size([2]), True)
    """
    finite = feature.isfinite().flatten(1).all(1)
    step = step.expand(feature.shape)
    with torch.no_grad():
        sign = feature.sign()
        whole = (magnitude.round() * sign).nan_to_num(0, 0, 0)
        model = fit_entropy_model(
            QuantizedLevel(whole, make_steps(step.log(), 'element'))).model
        scale = (model.scale / 4).exp2()[:, None]

    def bits_of(symbols: Tensor, step: Tensor) -> Tensor:
        return symbol_bits(
            as_samples(symbols), as_samples(step) / scale,
            model.centre[:, None] / 4, model.rectified[:, None] > 0)

    with torch.no_grad():
        below = (feature.abs() / step).floor().nan_to_num(0, 0, 0)
        slope = bits_of((below + 1) * sign, step) - bits_of(below * sign, step)
    change = as_samples(magnitude - magnitude.detach())
    bits = bits_of(whole, step) + change * slope
    return torch.where(finite, bits.flatten(1).sum(1), torch.nan)
