r"""The task metric: what noise at a feature costs, and what of it is seen.

With g the task's gradient at a token, the second moment

.. math:: M = \mathrm{E}[g g^T]

over pictures, tokens and draws is the mean Fisher information of a token, and
small noise of covariance S on T tokens costs

.. math:: \mathrm{E}[\mathrm{KL}] \approx \tfrac{T}{2} \operatorname{tr}(M S)

nats. The kernel of M is what the rest of the host cannot see. In the
coefficients of a block DCT every frequency has an M of its own. Ours.
"""
import math
from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import from_tokens, to_tokens

PADDINGS = ('replicate', 'zero')
_CHUNK = 1 << 22  # elements that are float64 at a time


class Moments(NamedTuple):
    """First and second moments over channels, of any number of tokens.

    Those of several kinds of tokens, such as the frequencies of a DCT, have
    leading axes.

    Attributes:
        count (int): Number of tokens, of each kind.
        total (Tensor): (..., C), float64: their sum.
        outer (Tensor): (..., C, C), float64: the sum of x x^T.

    Example:
        >>> a, b = torch.randn(2, 8, 4, 4), torch.randn(1, 8, 4, 4)
        >>> both = channel_moments(a).merged(channel_moments(b))
        >>> both.count, both.covariance.shape
        (48, torch.Size([8, 8]))
    """
    count: int
    total: Tensor
    outer: Tensor

    def merged(self, other: 'Moments') -> 'Moments':
        """Those of the tokens of both."""
        return Moments(*(a + b for a, b in zip(self, other)))

    @property
    def mean(self) -> Tensor:
        """Tensor: (..., C), float64; NaN of no tokens."""
        return self.total / self.count

    @property
    def second(self) -> Tensor:
        """Tensor: (..., C, C), float64: E[x x^T]."""
        return self.outer / self.count

    @property
    def covariance(self) -> Tensor:
        """Tensor: (..., C, C), float64: E[x x^T] - E[x] E[x]^T."""
        mean = self.mean
        return self.second - mean[..., :, None] * mean[..., None, :]

    @property
    def std(self) -> Tensor:
        """Tensor: (..., C), float64: standard deviation of each channel; 0
        of one that never changed."""
        second = self.second.diagonal(dim1=-2, dim2=-1)
        variance = second - self.mean.square()
        # what rounding leaves of a constant
        return torch.where(variance > 1e-12 * second, variance, 0.0).sqrt()


def _moments(tokens: Tensor) -> Moments:
    """Of (..., N, C), by chunks of N."""
    *kinds, count, channels = tokens.shape
    total = tokens.new_zeros(*kinds, channels, dtype=torch.float64)
    outer = total.new_zeros(*kinds, channels, channels)
    each = max(1, _CHUNK // (math.prod(kinds) * max(channels, 1)))
    for part in tokens.split(each, -2):
        part = part.double()
        total += part.sum(-2)
        outer += part.mT @ part
    return Moments(count, total, outer)


def channel_moments(feature: Tensor) -> Moments:
    """Moments over the channels of a feature, or of a gradient.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

    Returns:
        Moments: Of all B * T tokens.

    Example:
        >>> found = channel_moments(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        >>> found.mean, found.covariance
        (tensor([2., 2.], dtype=torch.float64), tensor([[1., 0.],
                [0., 0.]], dtype=torch.float64))
    """
    return _moments(to_tokens(feature).flatten(0, 1))


def frequency_moments(feature: Tensor,
                      block: int,
                      padding: str = 'replicate') -> Moments:
    """Moments over the channels, of every frequency of a block DCT.

    Args:
        feature (Tensor): (B, C, H, W).
        block (int): Side of a block, tokens.
        padding (str): See :func:`block_dct`. Defaults to 'replicate'.

    Returns:
        Moments: With a leading axis of ``block**2`` frequencies, of B * h * w
        blocks each.

    Example:
        >>> found = frequency_moments(torch.ones(1, 3, 4, 6), block=2)
        >>> found.count, found.mean.float().round(decimals=4)[:2]
        (6, tensor([[2., 2., 2.],
                [0., 0., 0.]]))
    """
    coefficients = block_dct(feature, block, padding)
    tokens = coefficients.permute(1, 0, 3, 4, 2)
    return _moments(tokens.flatten(1, 3))


def dct_matrix(size: int,
               dtype: torch.dtype = torch.float32,
               device: Optional[torch.device] = None) -> Tensor:
    r"""The orthonormal DCT-II.

    .. math:: D_{kn} = \sqrt{\tfrac{2 - [k = 0]}{N}}
        \cos\left(\tfrac{\pi}{N} k (n + \tfrac12)\right)

    Args:
        size (int): Number N of samples.
        dtype (torch.dtype): Its entries are those of float64, rounded.
            Defaults to torch.float32.
        device (torch.device, optional): Defaults to None: the CPU.

    Returns:
        Tensor: (N, N), one frequency a row, the lowest first.

    Example:
        >>> dct_matrix(2)
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]])
    """
    n = torch.arange(size, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / size * n[:, None] * (n + 0.5))
    norm = ((2 - (n == 0).double()) / size).sqrt()
    return (norm[:, None] * matrix).to(dtype)


def block_dct(feature: Tensor,
              block: int,
              padding: str = 'replicate') -> Tensor:
    """The DCT of blocks of tokens, of each channel.

    A frequency is a map like the feature, with one token a block. Where the
    last blocks lack tokens, a feature is padded by its edge, which adds least
    to the high frequencies. What is decoded there is thrown away, so a
    gradient is 0 there: pad it with zeros, and it is the gradient at the
    coefficients.

    Args:
        feature (Tensor): (B, C, H, W).
        block (int): Side of a block, tokens.
        padding (str): 'replicate' or 'zero'. Defaults to 'replicate'.

    Returns:
        Tensor: (B, F, C, h, w), float32 unless the feature is float64, with
        the F = ``block**2`` frequencies row by row, vertical ones slowest,
        and h = ceil(H / ``block``).

    Raises:
        ValueError: ``feature`` is no map, or there is no such padding.

    Example:
        >>> coefficients = block_dct(torch.ones(1, 3, 5, 8), block=4)
        >>> coefficients.shape
        torch.Size([1, 16, 3, 2, 2])
        >>> coefficients[0, :3, 0, 0, 0].round().abs()
        tensor([4., 0., 0.])
    """
    if feature.dim() != 4:
        raise ValueError('a block DCT needs a map (B, C, H, W), but got shape '
                         f'{tuple(feature.shape)}')
    if padding not in PADDINGS:
        raise ValueError(f'padding must be one of {PADDINGS}, but got '
                         f'{padding!r}')
    if feature.dtype != torch.float64:
        feature = feature.float()
    below, right = (-n % block for n in feature.shape[2:])
    mode = 'constant' if padding == 'zero' else padding
    x = F.pad(feature, (0, right, 0, below), mode) if below or right \
        else feature
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // block, block, width // block,
                  block).permute(0, 3, 5, 1, 2, 4)
    # all frequencies of all blocks in one product
    y = _block_matrix(block, x) @ x.reshape(batch, block * block, -1)
    return y.view(batch, -1, *x.shape[3:])


def _block_matrix(block: int, like: Tensor) -> Tensor:
    """The DCT over rows and columns of a block, (F, F)."""
    dct = dct_matrix(block, torch.float64, like.device)
    return torch.kron(dct, dct).to(like.dtype)


def block_idct(coefficients: Tensor, size: tuple) -> Tensor:
    """The reverse of :func:`block_dct`.

    Args:
        coefficients (Tensor): (B, F, C, h, w), F a square.
        size (tuple[int, int]): Height and width of the feature.

    Returns:
        Tensor: (B, C, *size).

    Example:
        >>> feature = torch.randn(2, 3, 5, 7)
        >>> same = block_idct(block_dct(feature, 4), (5, 7))
        >>> torch.allclose(same, feature, atol=1e-5)
        True
    """
    batch, frequencies, channels, height, width = coefficients.shape
    block = math.isqrt(frequencies)
    x = _block_matrix(block, coefficients).mT @ coefficients.flatten(2)
    x = x.view(batch, block, block, channels, height, width)
    x = x.permute(0, 3, 4, 1, 5, 2)
    x = x.reshape(batch, channels, height * block, width * block)
    return x[..., :size[0], :size[1]]


def expected_nats(metric: Tensor,
                  covariance: Tensor,
                  tokens: Union[int, float, Tensor] = 1) -> Tensor:
    r"""What small noise on independent tokens costs the task.

    .. math:: \mathrm{E}[\mathrm{KL}] \approx
        \tfrac12 \sum_k T_k \operatorname{tr}(M_k S_k)

    over kinds k of tokens: levels or frequencies, or one where there are no
    leading axes. The next order is missing: measured divergences leave it
    from about 0.02 nats on.

    Args:
        metric (Tensor): (..., C, C), M = E[g g^T] of each kind.
        covariance (Tensor): (..., C, C), E[d d^T] of the noise d.
        tokens (int | float | Tensor): Number T of tokens of each kind, (...).
            Defaults to 1.

    Returns:
        Tensor: A scalar, nats.

    Example:
        >>> metric = torch.diag(torch.tensor([1.0, 0.0]))
        >>> expected_nats(metric, 0.01 * torch.eye(2), tokens=4)
        tensor(0.0200)
    """
    trace = (metric * covariance.mT).sum((-2, -1))
    return 0.5 * (trace * tokens).sum()


def visible_rank(metric: Tensor, tolerance: float = 1e-3) -> Tensor:
    """How many directions the rest of the host sees.

    No more than there were gradients can be found: of C channels at least C
    tokens times draws are needed, and a few times that to tell a weak
    direction from none.

    Args:
        metric (Tensor): (..., C, C), symmetric, >= 0.
        tolerance (float): Least eigenvalue that counts, as a share of the
            largest. Defaults to 1e-3.

    Returns:
        Tensor: (...), int64: 0 where nothing is seen at all.

    Example:
        >>> metric = torch.diag(torch.tensor([1.0, 1e-4, 0.0]))
        >>> visible_rank(metric), visible_rank(metric, 1e-6)
        (tensor(1), tensor(2))
    """
    values = torch.linalg.eigvalsh(metric)
    return (values > _least(values, tolerance)).sum(-1)


def _least(values: Tensor, tolerance: float) -> Tensor:
    """What an eigenvalue must exceed to count; they are in rising order."""
    return tolerance * values[..., -1:].clamp_min(0)


def visible_basis(metric: Tensor, tolerance: float = 1e-3) -> Tensor:
    """The directions that the rest of the host sees: eigenvectors of M.

    They are those of the given M, so of the channels' own units; a tolerance
    relative to the channels' deviations wants diag(std) M diag(std). The size
    of the result is read from the device.

    Args:
        metric (Tensor): (C, C), symmetric, >= 0.
        tolerance (float): See :func:`visible_rank`. Defaults to 1e-3.

    Returns:
        Tensor: (C, r), orthonormal columns, what is seen best first; what is
        orthogonal to them is the null space.

    Example:
        >>> metric = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # sees the sum
        >>> visible_basis(metric).abs()
        tensor([[0.7071],
                [0.7071]])
    """
    values, vectors = torch.linalg.eigh(metric)
    return vectors[:, values > _least(values, tolerance)].flip(1)


def visible_part(feature: Tensor, basis: Tensor) -> Tensor:
    """What of a feature, or of a distortion, the rest of the host sees.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        basis (Tensor): (C, r) of :func:`visible_basis`.

    Returns:
        Tensor: The same shape: each token projected onto the basis.

    Example:
        >>> basis = visible_basis(torch.ones(2, 2))
        >>> visible_part(torch.tensor([[1.0, 3.0]]), basis).round(decimals=4)
        tensor([[2., 2.]])
    """
    basis = basis.to(feature.dtype)
    return from_tokens(to_tokens(feature) @ basis @ basis.mT, feature)


def hidden_part(feature: Tensor, basis: Tensor) -> Tensor:
    """What of a feature, or of a distortion, lies in the null space.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        basis (Tensor): (C, r) of :func:`visible_basis`.

    Returns:
        Tensor: The same shape: the feature without its
        :func:`visible_part`.

    Example:
        >>> basis = visible_basis(torch.ones(2, 2))
        >>> hidden_part(torch.tensor([[1.0, 3.0]]), basis).round(decimals=4)
        tensor([[-1.,  1.]])
    """
    return feature - visible_part(feature, basis)


def inverse_root(metric: Tensor, tolerance: float = 1e-3) -> Tensor:
    r"""What makes white noise as large as the task tolerates in every
    direction.

    .. math:: M_\epsilon^{-1/2} = U
        \max(\Lambda, \epsilon \lambda_{\max})^{-1/2} U^T

    Noise of this times white noise has the inverse of the metric as its
    covariance, so that every direction costs the same; what is hardly seen
    gets what the tolerance leaves it.

    Args:
        metric (Tensor): (C, C), symmetric, >= 0.
        tolerance (float): Least eigenvalue, as a share of the largest, > 0.
            Defaults to 1e-3.

    Returns:
        Tensor: (C, C), symmetric, float32.

    Example:
        >>> inverse_root(torch.diag(torch.tensor([4.0, 1.0])))
        tensor([[0.5000, 0.0000],
                [0.0000, 1.0000]])
    """
    values, vectors = torch.linalg.eigh(metric.double())
    least = _least(values, tolerance).clamp_min(torch.finfo(values.dtype).tiny)
    root = vectors * torch.maximum(values, least).rsqrt() @ vectors.mT
    return root.float()


def over_tokens(feature: Tensor, matrix: Tensor) -> Tensor:
    """A matrix times every token.

    Args:
        feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).
        matrix (Tensor): (C, C).

    Returns:
        Tensor: The same shape.

    Example:
        >>> over_tokens(torch.tensor([[1.0, 2.0]]),
        ...             torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[2., 1.]])
    """
    return from_tokens(to_tokens(feature) @ matrix.to(feature).mT, feature)


def volume_bits(noise_variance: Tensor, feature_variance: Tensor) -> Tensor:
    r"""The bits per element that noise frees: how large it is, in a unit in
    which nothing can hide.

    .. math:: V = \tfrac12 \operatorname{mean}_i
        \log_2 (1 + s_i / \lambda_i)

    for noise variances s and variances :math:`\lambda` of the features. At a
    given power noise can go where it is seen least; the volume of such noise
    is small. Compare volumes at the same cost in nats.

    Args:
        noise_variance (Tensor): (B, ...), >= 0.
        feature_variance (Tensor): Broadcastable to it, e.g. (1, C, 1, 1); an
            element whose variance is 0 has no bits to free.

    Returns:
        Tensor: (B,), bits per element.

    Example:
        >>> one_sided = torch.tensor([[6.0, 0.0]])
        >>> even = torch.tensor([[3.0, 3.0]])
        >>> volume_bits(one_sided, torch.ones(2))
        tensor([0.7018])
        >>> volume_bits(even, torch.ones(2))
        tensor([1.])
    """
    alive = feature_variance > 0
    ratio = noise_variance / torch.where(alive, feature_variance, 1.0)
    bits = 0.5 / math.log(2) * torch.log1p(ratio) * alive
    return bits.flatten(1).mean(1)
