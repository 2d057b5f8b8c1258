"""How large a distortion is, and how concentrated.

FeatJND reports the NRMSE; its abstract does not give the denominator, so the
definition is selectable and the default (RMS ratio) is ours.

An image with a NaN or an infinite value has NRMSE NaN, whatever the other
images of its batch hold.
"""
from typing import Tuple, Union

import torch
from torch import Tensor

from .layout import per_image

DEFINITIONS = ('rms', 'std', 'range')
_EXPONENT_BITS = 0x7F800000  # of a float32
_SMALLEST = torch.finfo(torch.float32).tiny


def _unit(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Each image over the power of two below its peak, (B, M), and that
    power, (B,).

    Squares and fourth powers of features leave the range of float32, those of
    the result do not; a power of two costs no bit of precision. NaN where an
    image has an infinite value.
    """
    if not x[:1].numel() and len(x):
        raise ValueError('the images have no elements: their shape is '
                         f'{tuple(x.shape[1:])}')
    flat = x.float().flatten(1)
    low, high = torch.aminmax(flat.detach(), dim=1)
    peak = torch.maximum(-low, high)
    # the mantissa cleared; infinite for a NaN, too
    power = (peak.view(torch.int32) & _EXPONENT_BITS).view(torch.float32)
    power = power.clamp_min(_SMALLEST)
    return flat / power[:, None], power


def _root_mean_square(unit: Tensor) -> Tensor:
    mean = unit.square().mean(1)
    some = mean != 0  # a NaN counts as some
    # the root's gradient at 0 is infinite, and where() would make it NaN
    return torch.where(some, mean, 1.0).sqrt() * some


def rms(x: Tensor) -> Tensor:
    """Root mean square of each image.

    Args:
        x (Tensor): (B, ...), at least one element an image.

    Returns:
        Tensor: (B,), float32. NaN for an image with a NaN or an infinite
        value. The gradient of an image that is 0 is 0.

    Example:
        >>> rms(torch.tensor([[3.0, -4.0, 0.0, 0.0], [1e37] * 4])).tolist()
        [2.5, 9.999999933815813e+36]
    """
    unit, power = _unit(x)
    return _root_mean_square(unit) * power


def _denominator(feature: Tensor, definition: str) -> Tuple[Tensor, Tensor]:
    """d(f) of each image over a power of two, and that power, (B,) each."""
    if definition not in DEFINITIONS:
        raise ValueError(f'NRMSE definition must be one of {DEFINITIONS}, '
                         f'but got {definition!r}')
    unit, power = _unit(feature)
    if definition == 'rms':
        return _root_mean_square(unit), power
    if definition == 'range':
        return unit.amax(1) - unit.amin(1), power
    # from any value of the image: that of a constant is 0, not rounding
    away = unit - unit[:, :1].detach()
    return _root_mean_square(away - away.mean(1, keepdim=True)), power


def nrmse(delta: Tensor, feature: Tensor, definition: str = 'rms') -> Tensor:
    r"""Normalized root mean square error of each image.

    .. math::
        \mathrm{NRMSE} = \sqrt{\mathrm{mean}(\delta^2)} / d(f), \quad
        d = \mathrm{RMS}(f),\ \mathrm{std}(f)\ \text{or}\ \max f - \min f

    Args:
        delta (Tensor): The distortion, (B, ...).
        feature (Tensor): The clean feature, same shape.
        definition (str): 'rms', 'std' or 'range'. Defaults to 'rms'.

    Returns:
        Tensor: (B,), float32, >= 0. An image whose denominator is 0 counts
        as 0 if its distortion is 0 too, else as infinite. NaN for an image
        with a NaN or an infinite value in distortion or feature.

    Example:
        >>> feature = torch.tensor([[3.0, -4.0], [0.0, 1.0]])  # (B, C)
        >>> nrmse(feature / 2, feature)
        tensor([0.5000, 0.5000])
    """
    unit, power = _unit(delta)
    rmse = _root_mean_square(unit)
    spread, of_feature = _denominator(feature, definition)
    nothing = (rmse == 0) & (spread == 0)
    return rmse / torch.where(nothing, 1.0, spread) * (power / of_feature)


def scale_to_nrmse(delta: Tensor,
                   feature: Tensor,
                   target: Union[float, Tensor],
                   definition: str = 'rms') -> Tensor:
    """The distortion of each image, rescaled to a requested NRMSE.

    Args:
        delta (Tensor): The distortion, (B, ...).
        feature (Tensor): The clean feature, same shape.
        target (float | Tensor): Requested NRMSE, a number or (B,).
        definition (str): See :func:`nrmse`. Defaults to 'rms'.

    Returns:
        Tensor: Float32, the shape of ``delta``. A distortion that is zero in
        an image has no direction and stays zero there. All NaN for an image
        with a NaN or an infinite value in distortion or feature.

    Example:
        >>> feature = torch.randn(2, 8, 4, 4)
        >>> delta = scale_to_nrmse(torch.randn(2, 8, 4, 4), feature, 0.3)
        >>> nrmse(delta, feature)
        tensor([0.3000, 0.3000])
    """
    unit, _ = _unit(delta)
    now = _root_mean_square(unit)
    spread, power = _denominator(feature, definition)
    some = now != 0
    scale = target * spread / torch.where(some, now, 1.0) * some * power
    return unit.view(delta.shape) * per_image(scale, delta)


def participation_ratio(delta: Tensor) -> Tensor:
    r"""The share of elements that carries the energy of each image.

    .. math:: (\sum \delta^2)^2 / (M \sum \delta^4)

    1 for a constant magnitude, 1/3 for Gaussian noise, 1/M for one spike.
    Reported beside every NRMSE, because the same NRMSE can hide in a few dead
    elements.

    Args:
        delta (Tensor): The distortion, (B, ...), M elements an image.

    Returns:
        Tensor: (B,), float32, in (0, 1]; 0 where the distortion is 0, NaN
        where it has a NaN or an infinite value.

    Example:
        >>> participation_ratio(torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
        tensor([1.0000, 0.5000])
    """
    energy = _unit(delta)[0].square()
    fourth = energy.square().sum(1)
    return energy.sum(1).square() / (
        energy.size(1) * torch.where(fourth == 0, 1.0, fourth))
