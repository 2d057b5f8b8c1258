"""Where the bits go: the steps that each policy wishes.

Every function returns the natural logarithm of steps in the unit of the
feature, up to a scale; :func:`mmfeatjnd.functional.make_steps` puts them on
the grid. Baselines get what they need to be strong: their own granularity,
and the same entropy coder.
"""
import math

import torch
from torch import Tensor

from .layout import channel_dim, mean_over_tokens, per_image
from .quantize import Steps
from .strength import rms


def _log_or_mean(value: Tensor) -> Tensor:
    """Logarithm, and the image's mean of it where the value is 0."""
    some = value > 0
    log = torch.where(some, value, 1.0).log()  # 0 where there is none
    dims = list(range(1, value.dim()))
    mean = log.sum(dims, keepdim=True) / some.sum(
        dims, keepdim=True).clamp_min(1)
    return torch.where(some, log, mean.detach())


def jnd_log_steps(envelope: Tensor) -> Tensor:
    """Steps of twice the JND: the largest rounding error is then the JND
    (Jin et al., arXiv 2102.08168, section III-C).

    Args:
        envelope (Tensor): What an estimator in envelope mode returns, >= 0.

    Returns:
        Tensor: The same shape. Channels that never fired (envelope 0) get
        the image's mean of the others.
    """
    return _log_or_mean(envelope).add_(math.log(2))


def jnd_rounding(log_step: Tensor, steps: Steps) -> Tensor:
    r"""Round to the cheapest level within the JND.

    An element whose own tolerance E exceeds half of its step, which it shares
    with its token and channel, may round further towards 0 and still stay
    within E:

    .. math:: \rho = \mathrm{clip}(1 - E / \Delta, 0, 1/2)

    So the tolerance of every element is used at no side information: the
    decoder needs the steps only. Ours.

    Args:
        log_step (Tensor): :func:`jnd_log_steps`, i.e. log 2E.
        steps (Steps): The steps made from it, not yet scaled.

    Returns:
        Tensor: rho for :func:`mmfeatjnd.functional.quantize`.
    """
    one = log_step.new_ones(())
    return torch.addcdiv(
        one, log_step.exp(), steps.size(log_step),
        value=-0.5).clamp_(0, 0.5)


def uniform_log_steps(feature: Tensor) -> Tensor:
    """One step for an image: the RMS of its feature, (B, 1, ...)."""
    value = per_image(rms(feature), feature)
    return torch.where(value > 0, value, 1.0).log()


def range_log_steps(feature: Tensor) -> Tensor:
    """The largest magnitude of every token: dynamic per-token quantization as
    in SmoothQuant (Xiao et al., arXiv 2211.10438) and torchao.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Tensor: With size 1 for the channels. Tokens that are all zero get the
        mean of the image.
    """
    return _log_or_mean(feature.float().abs().amax(
        channel_dim(feature), keepdim=True))


def gradient_log_steps(sensitivity: Tensor, feature: Tensor) -> Tensor:
    r"""Steps from the task's squared gradient w: minimising
    :math:`\sum w \Delta^2` at equal rate gives :math:`\Delta \propto
    w^{-1/2}` (reverse water-filling).

    w of a single image is noisy, so it is replaced by its rank-one model
    (mean over channels times mean over tokens); the floor, 1 % of its mean,
    bounds the steps of elements without gradient. In units of the RMS.

    Args:
        sensitivity (Tensor): w >= 0, (B, C, H, W), (B, N, C) or (B, C).
        feature (Tensor): The feature, the same shape.

    Returns:
        Tensor: The same shape.
    """
    w = sensitivity.float()
    dims = list(range(1, w.dim()))
    mean = w.mean(dims, keepdim=True)
    w = w / torch.where(mean > 0, mean, 1.0)
    smooth = w.mean(channel_dim(w), keepdim=True) * mean_over_tokens(w)
    log = -0.5 * (smooth + 0.01).log()
    log = log - log.mean(dims, keepdim=True)
    return log + uniform_log_steps(feature)


def water_filling_steps(steps: Steps, feature: Tensor) -> Steps:
    r"""Reverse water-filling: channels below the water level are dropped.

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
    """
    power = mean_over_tokens(feature.float().square())
    base = steps.size(feature)
    dropped = power < base.square() / 12
    peak = feature.float().abs().amax(
        list(range(1, feature.dim())), keepdim=True)
    octaves = (2 * (peak / base).clamp_min(1)).log2().ceil() + 1
    exponent = (2 * octaves).clamp(max=64) * dropped
    return steps._replace(channel=exponent.int())


def clip_range(feature: Tensor,
               levels: int,
               candidates: int = 32) -> Tensor:
    """The clipping range of each image that minimises the squared error of a
    coarse uniform quantizer.

    After Cohen, Choi and Bajic (arXiv 2105.07102): clip, and quantize
    uniformly with few levels whose outermost lie on the ends of the range.
    They find the range from a model of the features; here it is found on the
    feature itself, which is at least as good.

    Args:
        feature (Tensor): (B, ...).
        levels (int): Number of levels, >= 2.
        candidates (int): Ranges tried: equal fractions of [min, max], which
            includes 0. Defaults to 32.

    Returns:
        Tensor: (B, 2), float32: low and high.
    """
    flat = feature.float().flatten(1)
    low = flat.amin(1, keepdim=True).clamp(max=0)
    high = flat.amax(1, keepdim=True).clamp_min(0)
    best = torch.full_like(low, float('inf'))
    share = torch.ones_like(low)
    for i in range(1, candidates + 1):
        fraction = i / candidates
        a, b = low * fraction, high * fraction
        step = ((b - a) / (levels - 1)).clamp_min(1e-20)
        value = ((flat.clamp(a, b) - a) / step).round() * step + a
        error = (value - flat).square().mean(1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        share = torch.where(better, fraction, share)
    return torch.cat([low, high], 1) * share


def clip_steps(bounds: Tensor, levels: int) -> Steps:
    """The steps of a clipping range; level 0 is the one nearest to 0.

    Args:
        bounds (Tensor): (B, 2): low <= 0 <= high.
        levels (int): Number of levels, >= 2.

    Returns:
        Steps: One step for an image, with an offset.
    """
    low, high = bounds.unbind(1)
    base = (high - low) / (levels - 1)
    base = torch.where(base > 0, base, 1.0)
    below = (-low / base).round()
    return Steps(base, offset=low + below * base)
