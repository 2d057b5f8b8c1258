"""The steps that each policy wishes: where the bits go.

Every function returns the natural logarithm of steps in the unit of the
feature, up to a scale; :func:`mmfeatjnd.functional.make_steps` puts them on
the grid. Baselines get what they need to be strong: their own granularity,
and the same entropy coder. An image with a NaN gets NaN, never a plausible
step.
"""
import math
from typing import Tuple, Union

import torch
from torch import Tensor

from .layout import channel_dim, mean_over_tokens, per_image
from .nrmse import rms
from .steps import MAX_EXPONENT, Steps


def _log_or_mean(value: Tensor) -> Tensor:
    """Logarithm, and the image's mean of it where the value is 0."""
    some = value != 0  # a NaN counts as some
    log = torch.where(some, value, 1.0).log()  # 0 where there is none
    dims = list(range(1, value.dim()))
    mean = log.sum(dims, keepdim=True) / some.sum(
        dims, keepdim=True).clamp_min(1)
    return torch.where(some, log, mean.detach())


def jnd_log_steps(envelope: Tensor,
                  unit: Union[float, Tensor] = 1.0,
                  power: float = 1.0) -> Tensor:
    r"""Steps of twice the JND: the largest rounding error is then the JND
    (Jin et al., arXiv 2102.08168, section III-C); or with a power of it,

    .. math:: \Delta = 2 u\, (E / u)^p

    for the JND E in a unit u of the channel. A JND much larger than the
    channel's deviation buys nothing, since what is rounded to 0 is lost
    anyway, so a power below 1 spends fewer bits at equal cost. The power is
    ours.

    Args:
        envelope (Tensor): What an estimator returns, >= 0.
        unit (float | Tensor): Unit u, >= 0, broadcastable. Defaults to 1.
        power (float): p. Defaults to 1.

    Returns:
        Tensor: The same shape, float32. Channels that never fired (envelope
        0) get the image's mean of the others.

    Example:
        >>> jnd_log_steps(torch.tensor([[0.5, 2.0]])).exp()
        tensor([[1., 4.]])
        >>> jnd_log_steps(torch.tensor([[4.0, 9.0]]), power=0.5).exp()
        tensor([[4., 6.]])
    """
    envelope = envelope.float()
    if power != 1:
        unit = torch.as_tensor(unit, device=envelope.device)
        some = unit > 0
        unit = torch.where(some, unit, 1.0)
        envelope = unit * (envelope / unit)**power
    return _log_or_mean(envelope).add_(math.log(2))


def jnd_rounding(log_step: Tensor, steps: Steps) -> Tensor:
    r"""Rounding to the cheapest symbol within the JND.

    An element whose own JND E exceeds half of its step, which it shares with
    its token and channel, may round further towards 0 and still stay within
    E:

    .. math:: \rho = \mathrm{clip}(1 - E / \Delta, 0, 1/2)

    So the JND of every element is used at no side information: the decoder
    needs the steps only. Ours.

    Args:
        log_step (Tensor): :func:`jnd_log_steps`, i.e. log 2E.
        steps (Steps): The steps made from it, not yet scaled.

    Returns:
        Tensor: rho, the shape of ``log_step``; see
        :class:`mmfeatjnd.functional.Allocation`.

    Example:
        >>> log_step = jnd_log_steps(torch.tensor([[0.5, 0.75, 2.0]]))
        >>> jnd_rounding(log_step, Steps(torch.tensor([1.0])))
        tensor([[0.5000, 0.2500, 0.0000]])
    """
    one = log_step.new_ones(())
    return torch.addcdiv(
        one, log_step.exp(), steps.size(log_step),
        value=-0.5).clamp_(0, 0.5)


def uniform_log_steps(feature: Tensor) -> Tensor:
    """One step for an image: the RMS of its feature.

    Args:
        feature (Tensor): (B, ...).

    Returns:
        Tensor: (B, 1, ...), float32. 0 where the feature is 0: any step will
        do.

    Example:
        >>> uniform_log_steps(torch.tensor([[3.0, -3.0]])).exp()
        tensor([[3.]])
    """
    value = per_image(rms(feature), feature)
    return torch.where(value == 0, 1.0, value).log()


def range_log_steps(feature: Tensor) -> Tensor:
    """One step for a token, its largest magnitude: dynamic per-token
    quantization as in SmoothQuant (Xiao et al., arXiv 2211.10438) and torchao.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Tensor: With size 1 for the channels. Tokens that are all zero get the
        mean of the image.

    Example:
        >>> tokens = torch.tensor([[[1.0, -3.0], [0.5, 0.0]]])  # (B, N, C)
        >>> range_log_steps(tokens).exp()
        tensor([[[3.0000],
                 [0.5000]]])
    """
    return _log_or_mean(feature.float().abs().amax(
        channel_dim(feature), keepdim=True))


def sensitivity_log_scale(sensitivity: Tensor) -> Tensor:
    r"""Logarithm of how large noise or steps may be where the task's squared
    gradient is w: minimising :math:`\sum w \sigma^2` at equal rate
    gives :math:`\sigma \propto w^{-1/2}` (reverse water-filling).

    w of a single image is noisy, so it is replaced by its rank-one model
    (mean over channels times mean over tokens); the floor, 1 % of its mean,
    keeps elements without gradient from taking everything. Ours.

    .. math:: \log \sigma_{ct} = -\tfrac{1}{2} \log(\bar w_c \bar w_t /
        \bar w^2 + 0.01)

    Args:
        sensitivity (Tensor): w >= 0, (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Tensor: The same shape, float32; constant without any gradient.

    Example:
        >>> w = torch.tensor([[4.0, 0.0]])  # a vector: w / mean is 2 and 0
        >>> sensitivity_log_scale(w).exp().round(decimals=2)
        tensor([[ 0.7100, 10.0000]])
    """
    w = sensitivity.float()
    # in units of the mean: products of squared gradients leave float32's range
    mean = w.mean(list(range(1, w.dim())), keepdim=True)
    w = w / torch.where(mean > 0, mean, 1.0)
    smooth = w.mean(channel_dim(w), keepdim=True) * mean_over_tokens(w)
    return -0.5 * (smooth + 0.01).log()


def gradient_log_steps(sensitivity: Tensor, feature: Tensor) -> Tensor:
    """Steps from the task's squared gradient, see
    :func:`sensitivity_log_scale`. Their geometric mean is the RMS of the
    feature.

    Args:
        sensitivity (Tensor): w >= 0, (B, C, H, W), (B, N, C) or (B, C).
        feature (Tensor): The feature, the same shape.

    Returns:
        Tensor: The same shape.

    Example:
        >>> w, feature = torch.tensor([[4.0, 0.0]]), torch.ones(1, 2)
        >>> gradient_log_steps(w, feature).exp().round(decimals=2)
        tensor([[0.2700, 3.7700]])
    """
    log = sensitivity_log_scale(sensitivity)
    log = log - log.mean(list(range(1, log.dim())), keepdim=True)
    return log + uniform_log_steps(feature)


def water_filling_steps(steps: Steps, feature: Tensor) -> Steps:
    r"""Steps of reverse water-filling: channels below the water level are
    dropped.

    The rate-distortion solution for independent Gaussian channels gives every
    channel the distortion :math:`\min(\theta, \sigma_c^2)`, with the water
    level :math:`\theta = \Delta^2 / 12` (Cover and Thomas, Elements of
    Information Theory, theorem 10.3.3). A dropped channel gets a step that
    nothing exceeds.

    Args:
        steps (Steps): One step for an image, already scaled.
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Steps: With exponents for the channels.

    Example:
        >>> feature = torch.zeros(1, 2, 2, 2)
        >>> feature[:, 0], feature[:, 1] = 8.0, 0.2
        >>> water_filling_steps(Steps(torch.tensor([2.0])), feature).channel
        tensor([[[[0]],
        <BLANKLINE>
                 [[8]]]], dtype=torch.int32)
    """
    base = steps.size(feature)
    # in units of the step, whose square may leave the range of float32
    ratio = feature.float() / base
    dropped = mean_over_tokens(ratio.square()) < 1 / 12
    peak = ratio.abs().amax(list(range(1, feature.dim())), keepdim=True)
    octaves = (2 * peak.clamp_min(1)).log2().ceil() + 1
    exponent = (2 * octaves).clamp(max=MAX_EXPONENT).nan_to_num(0) * dropped
    return steps._replace(channel=exponent.int())


#: Ends of clipping ranges are looked for from the largest magnitude down by
#: this many octaves, first in steps of 1/8 octave, then of 1/64.
_CLIP_OCTAVES = 20
_FIXED_POINT = 1 << 30


def clip_range(feature: Tensor, bins: int) -> Tensor:
    """The clipping range of each image that minimises the squared error of a
    coarse uniform quantizer with so many bins.

    After Cohen, Choi and Bajic (arXiv 2105.07102): clip, and quantize
    uniformly with few bins, the values of whose outermost lie on the ends of
    the range. They find the range from a model of the features after a
    (leaky) ReLU; here it is found on the feature itself, which is at least as
    good. That one bin has the value 0, and how many lie on either side of it
    for features of both signs, is ours: features are 0 more often than
    anything else.

    Args:
        feature (Tensor): (B, ...).
        bins (int): Number of bins, >= 2.

    Returns:
        Tensor: (B, 2), float32: low <= 0 <= high, whole multiples of the step
        ``(high - low) / (bins - 1)``. NaN for an image with a NaN.

    Example:
        >>> clip_range(torch.tensor([[0.0, 2.0, 4.0, -2.0]]), 4)
        tensor([[-2.,  4.]])
    """
    flat = feature.float().flatten(1)
    low, high = torch.aminmax(flat, dim=1, keepdim=True)
    peak = torch.maximum(-low, high)
    unit = torch.where(peak == 0, 1.0, peak)  # any step will do
    x = (flat / unit).nan_to_num(0).sort(1).values
    # sums of whole numbers are the same in every run, on every device
    sums = (x * _FIXED_POINT).round().long().cumsum(1)
    sums = torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)
    octave = torch.arange(_CLIP_OCTAVES * 8 + 1, device=x.device) / 8
    # ranges that end exactly at the peak, too
    divided = 1 / torch.arange(2, min(bins, 64), device=x.device)
    step = torch.cat([(-octave).exp2(), divided]).sort(descending=True).values
    step, _ = _best_grid(x, sums, step.expand(len(x), -1), bins)
    octave = torch.arange(-8, 9, device=x.device) / 64
    step, below = _best_grid(x, sums, step * (-octave).exp2(), bins)
    ends = torch.cat([-below, bins - 1 - below], 1)
    return unit * step * ends


def _best_grid(x: Tensor, sums: Tensor, step: Tensor,
               bins: int) -> Tuple[Tensor, Tensor]:
    r"""The step with the least squared error, and its bins below 0.

    Beside a quantizer that knows 0 only, the bin of :math:`j \Delta` saves
    :math:`2 \Delta \sum_x \max(x - t_j, 0)` with its threshold
    :math:`t_j = (j - 1/2) \Delta`. So the bins that save most make the grid,
    on either side of 0.

    Args:
        x (Tensor): The features of each image, sorted, (B, M).
        sums (Tensor): Sums of the first 0 to M of them, (B, M + 1), in units
            of 2^-30.
        step (Tensor): Delta, (B, S), the largest first: of those that are
            as good, it is taken.
        bins (int): Number of bins.

    Returns:
        tuple[Tensor]: (B, 1) each.
    """
    index = torch.arange(bins - 1, device=x.device)
    at = (step.double()[..., None] * (index + 0.5)).flatten(1)  # (B, S * L)
    # by how much in sum what lies beyond a threshold exceeds it
    upper = torch.searchsorted(x, at.float(), right=True)
    lower = torch.searchsorted(x, -at.float())
    above = (sums[:, -1:] - sums.gather(1, upper)).double() / _FIXED_POINT
    above = above - at * (x.size(1) - upper)
    below = -sums.gather(1, lower).double() / _FIXED_POINT - at * lower
    saved = torch.cat(
        [s.view(*step.shape, bins - 1) for s in (above, below)], -1)
    # stable: where no bin saves anything it is one above 0
    saved, side = saved.sort(dim=-1, descending=True, stable=True)
    total = saved[..., :bins - 1].sum(-1) * step
    good = total >= total.amax(1, keepdim=True) * (1 - 1e-8)
    best = good.int().argmax(1, keepdim=True)
    number = (side[..., :bins - 1] >= bins - 1).sum(-1)
    return step.gather(1, best), number.gather(1, best)


def clip_cover(feature: Tensor, bounds: Tensor) -> Tensor:
    """The factor by which a clipping range may be widened: until each end that
    is not 0 has reached the features' own, and no further, since that makes
    only the error grow.

    Args:
        feature (Tensor): (B, ...).
        bounds (Tensor): (B, 2): low <= 0 <= high, not both 0.

    Returns:
        Tensor: (B,), float32: a factor of the range, >= 1. NaN for an image
        with a NaN.

    Example:
        >>> clip_cover(torch.tensor([[-3.0, 8.0]]), torch.tensor([[-1., 4.]]))
        tensor([3.])
    """
    ends = torch.stack(torch.aminmax(feature.float().flatten(1), dim=1), 1)
    share = torch.where(bounds == 0, 0.0, ends / bounds)
    # an end on the other side of 0 has nothing to reach
    return share.amax(1).clamp_min(1)


def clip_steps(bounds: Tensor, bins: int) -> Steps:
    """The steps of a clipping range.

    Args:
        bounds (Tensor): (B, 2): low <= 0 <= high, whole multiples of the
            step, as :func:`clip_range` returns them.
        bins (int): Number of bins, >= 2.

    Returns:
        Steps: One step for an image.

    Example:
        >>> clip_steps(torch.tensor([[-2.0, 4.0]]), bins=4).base
        tensor([2.])
    """
    low, high = bounds.unbind(1)
    base = (high - low) / (bins - 1)
    return Steps(torch.where(base == 0, 1.0, base))
