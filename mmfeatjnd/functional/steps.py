"""Quantization steps that vary over tokens and channels.

A step is ``base * 2^(exponent / 2)``: one base an image, and integer
exponents (half octaves) for its tokens, channels or elements. Steps on such a
grid cost few bits to send, and both sides compute the same floats from them.
"""
from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor

from .layout import channel_dim, mean_over_tokens, per_image

GRANULARITIES = ('tensor', 'token', 'channel', 'channel-token', 'element')
#: Exponents are clamped to +- this: a factor of 2^32 either way.
MAX_EXPONENT = 64


class Steps(NamedTuple):
    """The quantization steps of one level of features.

    Attributes:
        base (Tensor): (B,), float32, > 0, in the unit of the feature.
        token (Tensor, optional): Half octaves, integer values, (B, 1, H, W),
            (B, N, 1) or (B, 1). None: 0.
        channel (Tensor, optional): The same, (B, C, 1, 1), (B, 1, C), (B, C).
        element (Tensor, optional): The same, the shape of the feature.

    Example:
        >>> steps = Steps(torch.tensor([1.0]), channel=torch.tensor([[0, 2]]))
        >>> steps.scaled(3.0).size(torch.zeros(1, 2))
        tensor([[3., 6.]])
    """
    base: Tensor
    token: Optional[Tensor] = None
    channel: Optional[Tensor] = None
    element: Optional[Tensor] = None

    @property
    def exponent(self) -> Union[Tensor, int]:
        """The sum of the exponents, broadcastable to the feature."""
        parts = [self.token, self.channel, self.element]
        return sum((p for p in parts if p is not None), start=0)

    def size(self, like: Tensor) -> Tensor:
        """The steps, float32, broadcastable to ``like``."""
        size = per_image(self.base, like)
        for part in (self.token, self.channel, self.element):
            if part is not None:  # one product over the whole feature
                size = size * half_octaves(part)
        return size

    def scaled(self, factor: Union[float, Tensor]) -> 'Steps':
        """All steps times a factor, a number or (B,)."""
        return self._replace(base=self.base * factor)


def half_octaves(exponent: Tensor) -> Tensor:
    """2^(exponent / 2), float32, the same bits on every device.

    Args:
        exponent (Tensor): Integers, any shape. Floats take a gradient.

    Returns:
        Tensor: The same shape.

    Example:
        >>> half_octaves(torch.tensor([-2, 0, 1]))
        tensor([0.5000, 1.0000, 1.4142])
    """
    if exponent.requires_grad:
        return torch.exp2(exponent / 2)
    exponent = exponent.int()
    # 1 or sqrt(2), times a float made from its bits: the last bit of exp2
    # differs between devices
    odd = (exponent & 1).float()
    power = (((exponent >> 1) + 127) << 23).view(torch.float32)
    return (1 + odd * 0.41421354) * power


def check_granularity(granularity: str) -> None:
    """Raise a ValueError unless this is one of :data:`GRANULARITIES`."""
    if granularity not in GRANULARITIES:
        raise ValueError(f'granularity must be one of {GRANULARITIES}, '
                         f'but got {granularity!r}')


def make_steps(log_step: Tensor, granularity: str) -> Steps:
    r"""Steps on the grid from wished steps.

    They are the geometric mean over what the granularity joins, in half
    octaves; for 'channel-token' the separable model (mean over channels plus
    mean over tokens):

    .. math:: \log\Delta_{ct} = \bar\ell + [\ell_t - \bar\ell] +
        [\ell_c - \bar\ell]

    where [.] rounds to the grid, unless a gradient is needed. Ours.

    Args:
        log_step (Tensor): Natural logarithm of the wished steps, (B, C, H,
            W), (B, N, C), (B, C), or with size 1 where it is constant.
        granularity (str): One of :data:`GRANULARITIES`.

    Returns:
        Steps: Exponents where the granularity has them.

    Raises:
        ValueError: There is no such granularity.

    Example:
        >>> log_step = torch.tensor([[1.0, 2.0, 4.0]]).log()  # (B, C)
        >>> steps = make_steps(log_step, 'element')
        >>> steps.base, steps.element
        (tensor([2.]), tensor([[-2,  0,  2]], dtype=torch.int32))
    """
    check_granularity(granularity)
    log_step = log_step.float()
    mean = log_step.mean(list(range(1, log_step.dim())), keepdim=True)

    def grid(x: Tensor) -> Tensor:
        x = (x * (2 / 0.6931471805599453)).clamp(-MAX_EXPONENT, MAX_EXPONENT)
        # in training the grid would hide every small change from the task.
        # A NaN is no integer: it is in the base already
        return x if x.requires_grad else x.round().nan_to_num(0).int()

    token = per_channel = element = None
    if granularity in ('token', 'channel-token'):
        token = grid(
            log_step.mean(channel_dim(log_step), keepdim=True) - mean)
    if granularity in ('channel', 'channel-token'):
        per_channel = grid(mean_over_tokens(log_step) - mean)
    if granularity == 'element':
        element = grid(log_step - mean)
    return Steps(mean.exp().flatten(), token, per_channel, element)


def modelled_noise(steps: Steps, like: Tensor) -> Tensor:
    r"""Noise power of each image by the model mean(Delta^2) / 12.

    It holds where the step is small against the spread of what it quantizes.

    Args:
        steps (Steps): The steps.
        like (Tensor): The feature, (B, ...).

    Returns:
        Tensor: (B,), float32, in the squared unit of the feature.

    Example:
        >>> modelled_noise(Steps(torch.tensor([6.0])), torch.zeros(1, 4))
        tensor([3.])
    """
    step = steps.size(like).expand(like.shape)
    return step.square().flatten(1).mean(1) / 12
