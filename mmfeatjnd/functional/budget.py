"""Meet a budget of noise or of bits with one scale for all steps."""
import math
from typing import Callable, Union

import torch
from torch import Tensor

from .quantize import Steps, modelled_noise
from .strength import rms


def scale_to_modelled_noise(steps: Steps, feature: Tensor,
                            budget: Union[float, Tensor]) -> Steps:
    r"""Scale the steps to a noise budget, in closed form.

    By the model :math:`\mathrm{NRMSE}^2 = \mathrm{mean}(\Delta^2) / (12\,
    \mathrm{mean}(f^2))`.

    Args:
        steps (Steps): The steps up to their scale.
        feature (Tensor): The clean feature, (B, ...).
        budget (float | Tensor): NRMSE of each image, a number or (B,).

    Returns:
        Steps: The same ratios. An image without energy keeps its steps.
    """
    wanted = budget * rms(feature)
    factor = wanted / modelled_noise(steps, feature).sqrt()
    return steps.scaled(torch.where(wanted > 0, factor, 1.0))


def bisect_scale(measure: Callable[[Tensor], Tensor],
                 target: Tensor,
                 increasing: bool = True,
                 finest: float = 2.0**-12,
                 coarsest: float = 2.0**12,
                 iterations: int = 20) -> Tensor:
    """The scale of each image at which a measurement reaches a target.

    Bisection in the logarithm of the scale, all images at once and without a
    host-device synchronization.

    Args:
        measure (Callable): (B,) scales to (B,) measurements, monotone in the
            scale, at least roughly.
        target (Tensor): (B,): what the measurement shall be.
        increasing (bool): Whether the measurement grows with the scale.
            Defaults to True.
        finest (float): The smallest scale tried. Defaults to 2^(-12).
        coarsest (float): The largest. Defaults to 2^12.
        iterations (int): Halvings of the interval. Defaults to 20: the scale
            is exact to 2^(-18) octaves or so.

    Returns:
        Tensor: (B,), float32. Where the target is out of reach, the end
        of the range that is nearest to it.
    """
    low = torch.full_like(target, math.log2(finest))
    high = torch.full_like(target, math.log2(coarsest))
    for _ in range(iterations):
        middle = (low + high) / 2
        go_up = (measure(middle.exp2()) < target) == increasing
        low = torch.where(go_up, middle, low)
        high = torch.where(go_up, high, middle)
    return ((low + high) / 2).exp2()
