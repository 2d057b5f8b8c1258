"""How strong a distortion is, and how concentrated.

FeatJND reports strength as NRMSE; its abstract does not give the denominator,
so the definition is selectable and the default (RMS ratio) is ours.
"""
from typing import Union

import torch
from torch import Tensor

from .layout import per_image

DEFINITIONS = ('rms', 'std', 'range')


def _flat(x: Tensor) -> Tensor:
    return x.float().flatten(1)  # (B, M)


def rms(x: Tensor) -> Tensor:
    """Root mean square of each image, (B,), float32."""
    mean = _flat(x).square().mean(1)
    some = mean > 0
    # the root's gradient at 0 is infinite, and where() would make it NaN
    return torch.where(some, mean, 1.0).sqrt() * some


def _denominator(feature: Tensor, definition: str) -> Tensor:
    if definition == 'rms':
        return rms(feature)
    flat = _flat(feature)
    if definition == 'std':
        return flat.std(1, unbiased=False)
    if definition == 'range':
        return flat.amax(1) - flat.amin(1)
    raise ValueError(f'NRMSE definition must be one of {DEFINITIONS}, '
                     f'but got {definition!r}')


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
        as 0 if its distortion is 0 too, else as infinite.
    """
    rmse = rms(delta)
    denominator = _denominator(feature, definition)
    return rmse / torch.where(rmse > 0, denominator, 1.0)


def scale_to_nrmse(delta: Tensor,
                   feature: Tensor,
                   target: Union[float, Tensor],
                   definition: str = 'rms') -> Tensor:
    """Rescale the distortion of each image to a requested NRMSE.

    Args:
        delta (Tensor): The distortion, (B, ...).
        feature (Tensor): The clean feature, same shape.
        target (float | Tensor): Requested NRMSE, a number or (B,).
        definition (str): See :func:`nrmse`. Defaults to 'rms'.

    Returns:
        Tensor: Float32, the shape of ``delta``. A distortion that is zero in
        an image has no direction and stays zero there.
    """
    now = rms(delta)
    wanted = target * _denominator(feature, definition)
    scale = wanted / torch.where(now > 0, now, 1.0) * (now > 0)
    return delta.float() * per_image(scale, delta)


def participation_ratio(delta: Tensor) -> Tensor:
    r"""The share of elements that carries the energy of each image.

    .. math:: (\sum \delta^2)^2 / (M \sum \delta^4)

    1 for a constant magnitude, 1/3 for Gaussian noise, 1/M for one spike.
    Reported beside every NRMSE, because the same NRMSE can hide in a few dead
    elements.

    Args:
        delta (Tensor): The distortion, (B, ...), M elements an image.

    Returns:
        Tensor: (B,), float32, in (0, 1]; 0 where the distortion is 0.
    """
    energy = _flat(delta).square()
    # normalised first: the fourth power leaves the range of float32 early
    energy = energy / energy.amax(1, keepdim=True).clamp_min(
        torch.finfo(energy.dtype).tiny)
    fourth = energy.square().sum(1)
    return energy.sum(1).square() / (energy.size(1) * fourth.clamp_min(1e-30))
