"""Meet a budget of noise or of bits with one scale for all steps."""
import math
from typing import Callable, Tuple, Union

import torch
from torch import Tensor

from .nrmse import rms
from .steps import Steps
from .symbols import MAX_SYMBOL

_SMALLEST = torch.finfo(torch.float32).tiny


def scale_to_modelled_noise(steps: Steps, feature: Tensor,
                            budget: Union[float, Tensor]) -> Steps:
    r"""The steps scaled to a noise budget, in closed form.

    By the model :math:`\mathrm{NRMSE}^2 = \mathrm{mean}(\Delta^2) / (12\,
    \mathrm{mean}(f^2))`.

    Args:
        steps (Steps): The steps up to their scale.
        feature (Tensor): The clean feature, (B, ...).
        budget (float | Tensor): NRMSE of each image, a number or (B,).

    Returns:
        Steps: The same ratios. An image without energy keeps its steps; one
        with a NaN or an infinite value gets NaN.

    Example:
        >>> feature = torch.ones(1, 8)
        >>> steps = Steps(torch.ones(1))
        >>> scale_to_modelled_noise(steps, feature, 0.5).base  # 0.5 sqrt(12)
        tensor([1.7321])
    """
    wanted = budget * rms(feature)
    # a size that is broadcast has the mean of what it stands for
    factor = wanted / (rms(steps.size(feature)) / math.sqrt(12))
    return steps.scaled(torch.where(wanted == 0, 1.0, factor))


def scale_limits(feature: Tensor, steps: Steps) -> Tuple[Tensor, Tensor]:
    """The scales of the steps between which quantization makes sense.

    At the finest scale the largest value of an image has the largest symbol
    that is not :func:`mmfeatjnd.functional.saturated`; finer steps would make
    more noise. Beyond the coarsest every symbol is 0.

    Args:
        feature (Tensor): The clean feature, (B, ...).
        steps (Steps): The steps at scale 1.

    Returns:
        tuple[Tensor]: The finest and the coarsest scale of each image, (B,),
        float32. NaN for an image with a NaN.

    Example:
        >>> feature = torch.tensor([[1.0, -3.0]])
        >>> finest, coarsest = scale_limits(feature, Steps(torch.ones(1)))
        >>> round(float(3.0 / finest)), round(float(3.0 / coarsest), 2)
        (32766, 0.48)
    """
    x = feature.float()
    peak = (x.abs() / steps.size(x)).flatten(1).amax(1)
    peak = torch.where(peak == 0, 1.0, peak)  # all scales are alike
    # the smallest base that keeps its precision; as a tensor, since a number
    # over a tensor is computed as a product with an infinite reciprocal
    smallest = torch.full_like(steps.base, _SMALLEST) / steps.base
    finest = torch.maximum(peak / (MAX_SYMBOL - 1), smallest)
    # what lies below half a step becomes 0
    return finest, torch.maximum(peak * 2.1, finest)


def bisect_scale(measure: Callable[[Tensor], Tensor],
                 target: Tensor,
                 increasing: bool = True,
                 finest: Union[float, Tensor] = 2.0**-12,
                 coarsest: Union[float, Tensor] = 2.0**12,
                 iterations: int = 20) -> Tensor:
    """The scale of each image at which a measurement meets a target.

    Bisection in the logarithm of the scale, all images at once and without a
    host-device synchronization. Whether the target was within reach is for
    :func:`meets_target` to say.

    Args:
        measure (Callable): (B,) scales to (B,) measurements, monotone in the
            scale, at least roughly.
        target (Tensor): (B,): what the measurement shall be.
        increasing (bool): Whether the measurement grows with the scale.
            Defaults to True.
        finest (float | Tensor): The smallest scale tried, a number or (B,).
            Defaults to 2^(-12).
        coarsest (float | Tensor): The largest, likewise. Defaults to 2^12.
        iterations (int): Halvings of the interval. Defaults to 20: the scale
            is exact to 2^(-15) octaves or so.

    Returns:
        Tensor: (B,), float32. Where the target is out of reach, the end
        of the range that is nearest to it. NaN where a measurement is.

    Example:
        >>> target = torch.tensor([4.0, 9.0])
        >>> bisect_scale(lambda scale: scale**2, target).round(decimals=3)
        tensor([2., 3.])
    """
    one = torch.ones_like(target)
    low, high = (one * finest).log2(), (one * coarsest).log2()
    broken = torch.zeros_like(target, dtype=torch.bool)
    for _ in range(iterations):
        middle = (low + high) / 2
        value = measure(middle.exp2())
        broken = broken | value.isnan()
        go_up = (value < target) == increasing
        low = torch.where(go_up, middle, low)
        high = torch.where(go_up, high, middle)
    scale = ((low + high) / 2).exp2()
    return torch.where(broken, torch.nan, scale)


def meets_target(measured: Tensor,
                 target: Union[float, Tensor],
                 precision: float = 0.05) -> Tensor:
    """Whether a search came to its target.

    It does not where the target lies beyond :func:`scale_limits`, or where
    the measurement jumps over it: in few channels and tokens, rate and noise
    are not continuous in the scale.

    Args:
        measured (Tensor): (B,): at the scale that was found.
        target (float | Tensor): A number or (B,): what it should be, > 0.
        precision (float): Largest relative difference. Defaults to 0.05.

    Returns:
        Tensor: (B,), bool. False where the measurement is NaN.

    Example:
        >>> meets_target(torch.tensor([0.99, 0.5]), 1.0)
        tensor([ True, False])
    """
    return (measured - target).abs() <= precision * target
