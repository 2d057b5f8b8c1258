"""Dual ascent on the multiplier of the tolerance constraint."""
import torch  # noqa: F401  for the examples
from torch import Tensor


def dual_ascent(multiplier: Tensor,
                discrepancy: Tensor,
                tolerance: float,
                rate: float = 0.05,
                bounds=(1e-3, 1e4)) -> Tensor:
    """The multiplier after one multiplicative step towards D = tolerance.

    For max M s.t. D <= eps the dual gradient is D - eps. The step is taken in
    the log of the multiplier and its relative size is clipped, so that it
    works for discrepancies of any unit::

        lambda <- lambda * exp(rate * clip(D / eps - 1, -1, 1))

    Args:
        multiplier (Tensor): Scalar, > 0.
        discrepancy (Tensor): Scalar, this step's D, the same on all ranks.
        tolerance (float): eps > 0.
        rate (float): Largest relative change of one step. Defaults to 0.05.
        bounds (tuple): The multiplier stays within. Defaults to (1e-3, 1e4).

    Returns:
        Tensor: The new multiplier, scalar. The old one where D is NaN.

    Example:
        >>> one = torch.tensor(1.0)
        >>> dual_ascent(one, torch.tensor(0.5), tolerance=0.1)  # exp(0.05)
        tensor(1.0513)
    """
    # a NaN, as in a step that mixed precision skips, must not stay
    step = (discrepancy / tolerance - 1).clamp(-1, 1).nan_to_num(0)
    return (multiplier * (rate * step).exp()).clamp(*bounds)
