r"""Linear codes of a level: in which components it is quantized.

Blocks of tokens go through a DCT, and the channels of every frequency w
through a basis of their own:

.. math:: z_w = A_w (x_w - \bar x_w), \qquad
    A_w = U_w^T M_w^{1/2}

with U the eigenvectors of :math:`M^{1/2} R M^{1/2}`, for a metric M and the
covariance R of the features. Components are uncorrelated, and noise on any of
them costs the same: :math:`d^T M d = |A d|^2`, so one step serves all of
them. With the task metric of :mod:`mmfeatjnd.functional.metric` as M its unit
is the root of a nat, and rounding of z costs :math:`\tfrac12 \mathrm{E}|e|^2`
nats; with the identity it is the Karhunen-Loeve transform (``pca``), and
without U it is the DCT alone. Ours.
"""
from typing import NamedTuple, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .metric import block_dct, block_idct

#: Which frequencies share a basis, from the finest on.
GROUPINGS = ('frequency', 'radius', 'shared')


class Transform(NamedTuple):
    """The code of one level, of C channels.

    Attributes:
        block (int): Side of a block, tokens; 1: no DCT.
        mean (Tensor): (F, C), what is subtracted from each of the F =
            ``block**2`` frequencies.
        basis (Tensor): (G, C, C), one component a row.
        group (Tensor): (F,), int64: the basis of each frequency.
        gain (Tensor): (F, C), factor of each component.
        inverse (Tensor): (G, C, C), that of the basis.

    Example:
        >>> plain = identity_transform(3)
        >>> plain.block, plain.components
        (1, 3)
    """
    block: int
    mean: Tensor
    basis: Tensor
    group: Tensor
    gain: Tensor
    inverse: Tensor

    @property
    def components(self) -> int:
        """int: F * C."""
        return self.mean.numel()

    def to(self, device: torch.device) -> 'Transform':
        """The same on another device."""
        return Transform(*(x.to(device) if isinstance(x, Tensor) else x
                           for x in self))


def make_transform(block: int, mean: Tensor, basis: Tensor, group: Tensor,
                   gain: Tensor) -> Transform:
    """A transform with its inverse, which is exact for any rounding of the
    basis.

    Args:
        block (int): Side of a block, tokens.
        mean, basis, group, gain (Tensor): See :class:`Transform`.

    Returns:
        Transform: In float32.

    Raises:
        ValueError: The basis has no inverse.

    Example:
        >>> basis = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])
        >>> found = make_transform(1, torch.zeros(1, 2), basis,
        ...                        torch.tensor([0]), torch.ones(1, 2))
        >>> found.inverse
        tensor([[[0.0000, 1.0000],
                 [0.5000, 0.0000]]])
    """
    try:
        inverse = torch.linalg.inv(basis.double())
    except RuntimeError as error:  # of LAPACK
        raise ValueError(f'the basis has no inverse: {error}') from error
    if not inverse.isfinite().all() or not (gain > 0).all():
        raise ValueError('the basis has no finite inverse')
    return Transform(block, mean.float(), basis.float(), group.long(),
                     gain.float(), inverse.float())


def identity_transform(channels: int, gain: float = 1.0) -> Transform:
    """Every channel for itself, times a gain: uniform quantization.

    Args:
        channels (int): C.
        gain (float): Factor, > 0. Defaults to 1.

    Returns:
        Transform: Of blocks of one token.

    Example:
        >>> feature = torch.tensor([[[[1.0]], [[2.0]]]])
        >>> to_components(feature, identity_transform(2, 3.0)).flatten()
        tensor([3., 6.])
    """
    return make_transform(1, torch.zeros(1, channels),
                          torch.eye(channels)[None],
                          torch.zeros(1, dtype=torch.long),
                          torch.full((1, channels), gain))


def _of_frequencies(basis: Tensor, group: Tensor) -> Tensor:
    """The basis of each frequency; no copies where none or all share one."""
    return basis if len(basis) in (1, len(group)) else basis[group]


def to_components(feature: Tensor, transform: Transform) -> Tensor:
    """The components of a map.

    Args:
        feature (Tensor): (B, C, H, W), of any floating dtype.
        transform (Transform): On its device.

    Returns:
        Tensor: (B, F * C, h, w), float32, one token a block, frequency by
        frequency; blocks that lack tokens are padded by their edge.

    Example:
        >>> transform = identity_transform(3)
        >>> feature = torch.randn(2, 3, 4, 5)
        >>> torch.equal(to_components(feature, transform), feature)
        True
    """
    x = block_dct(feature, transform.block)
    x = x.sub_(transform.mean[:, :, None, None])
    z = _of_frequencies(transform.basis, transform.group) @ x.flatten(3)
    z *= transform.gain[..., None]
    return z.view(x.shape).flatten(1, 2)


def from_components(components: Tensor, transform: Transform,
                    size: Tuple[int, int]) -> Tensor:
    """The map that has these components: the reverse of
    :func:`to_components`.

    Args:
        components (Tensor): (B, F * C, h, w).
        transform (Transform): On its device.
        size (tuple[int, int]): Height and width of the map.

    Returns:
        Tensor: (B, C, *size), float32.

    Example:
        >>> mean, gain = torch.randn(4, 3), torch.ones(4, 3)
        >>> transform = make_transform(
        ...     2, mean, torch.randn(4, 3, 3), torch.arange(4), gain)
        >>> feature = torch.randn(2, 3, 5, 7)
        >>> z = to_components(feature, transform)
        >>> z.shape
        torch.Size([2, 12, 3, 4])
        >>> back = from_components(z, transform, (5, 7))
        >>> torch.allclose(back, feature, atol=1e-3)
        True
    """
    z = components.float().unflatten(1, transform.mean.shape)
    z = z.flatten(3) / transform.gain[..., None]
    x = _of_frequencies(transform.inverse, transform.group) @ z
    x += transform.mean[..., None]
    return block_idct(x.unflatten(3, components.shape[2:]), size)


# ------------------------------------------------------------------ the bases
def frequency_groups(block: int, grouping: str) -> Tensor:
    """Which frequencies share a basis.

    Args:
        block (int): Side of a block, tokens.
        grouping (str): 'frequency': none; 'radius': those of the same u + v;
            'shared': all.

    Returns:
        Tensor: (F,), int64, counted from 0.

    Raises:
        ValueError: There is no such grouping.

    Example:
        >>> frequency_groups(3, 'radius').tolist()
        [0, 1, 2, 1, 2, 3, 2, 3, 4]
    """
    if grouping not in GROUPINGS:
        raise ValueError(f'grouping must be one of {GROUPINGS}, but got '
                         f'{grouping!r}')
    one = torch.arange(block)
    if grouping == 'radius':
        return (one[:, None] + one).flatten()
    every = torch.arange(block * block)
    return every if grouping == 'frequency' else every * 0


def group_means(moments: Tensor, group: Tensor) -> Tensor:
    """Means of moments over the frequencies of each group.

    Args:
        moments (Tensor): (F, ...).
        group (Tensor): (F,), see :func:`frequency_groups`.

    Returns:
        Tensor: (G, ...).

    Example:
        >>> group_means(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 1, 1]))
        tensor([1., 4.])
    """
    count = torch.bincount(group)
    total = moments.new_zeros(len(count), *moments.shape[1:])
    total.index_add_(0, group, moments)
    return total / count.view(-1, *[1] * (moments.dim() - 1)).to(total)


def shrunk(moments: Tensor, samples: float) -> Tensor:
    r"""Second moments of several kinds of tokens, drawn towards their common
    shape.

    .. math:: (1 - \lambda) M_w + \lambda \frac{\operatorname{tr} M_w}
        {\operatorname{tr} \bar M} \bar M, \quad \lambda = \frac{C}{C + n}

    of n samples each: what few samples say of directions is mostly noise.

    Args:
        moments (Tensor): (F, C, C).
        samples (float): n.

    Returns:
        Tensor: (F, C, C).

    Example:
        >>> moments = torch.stack([torch.eye(2), 3 * torch.eye(2)])
        >>> torch.equal(shrunk(moments, 2), moments)  # of one shape already
        True
    """
    weight = moments.size(-1) / (moments.size(-1) + samples)
    trace = moments.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    common = moments.mean(0)
    common = common / common.trace().clamp_min(1e-30)
    return torch.lerp(moments, trace * common, weight)


def metric_basis(metric: Tensor, covariance: Tensor,
                 floor: float = 1e-3) -> Tensor:
    r"""Components that are uncorrelated and alike in the metric.

    .. math:: A = U^T M^{1/2}, \quad
        M^{1/2} R M^{1/2} = U \Lambda U^T

    Args:
        metric (Tensor): M, (..., C, C), symmetric, >= 0.
        covariance (Tensor): R, the same shape.
        floor (float): Least eigenvalue of M, as a share of their mean: what
            is hardly seen is still coded, coarsely. Defaults to 1e-3.

    Returns:
        Tensor: A, (..., C, C), float64, the strongest component first.

    Example:
        >>> metric = torch.diag(torch.tensor([4.0, 1.0]))
        >>> basis = metric_basis(metric, torch.eye(2))
        >>> basis.abs()
        tensor([[2., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    values, vectors = torch.linalg.eigh(metric.double())
    least = floor * values.mean(-1, keepdim=True)
    least = least.clamp_min(torch.finfo(values.dtype).tiny)
    values = torch.maximum(values, least)
    root = (vectors * values.sqrt()[..., None, :]) @ vectors.mT
    _, turn = torch.linalg.eigh(root @ covariance.double() @ root)
    return turn.flip(-1).mT @ root


def component_gains(basis: Tensor, group: Tensor, metric: Tensor) -> Tensor:
    r"""Factors that make the components of a shared basis alike in the metric
    of each frequency.

    .. math:: g_{wi} = \sqrt{(A^{-T} M_w A^{-1})_{ii}}

    Args:
        basis (Tensor): A, (G, C, C).
        group (Tensor): (F,).
        metric (Tensor): M, (F, C, C).

    Returns:
        Tensor: (F, C), float64, > 0; 1 where the basis is that of M itself.

    Example:
        >>> metric = torch.stack([torch.eye(2), 4 * torch.eye(2)])
        >>> component_gains(torch.eye(2)[None], torch.tensor([0, 0]), metric)
        tensor([[1., 1.],
                [2., 2.]], dtype=torch.float64)
    """
    inverse = torch.linalg.inv(basis.double())[group]
    square = (inverse * (metric.double() @ inverse)).sum(-2)
    return square.clamp_min(1e-4 * square.mean()).sqrt()


def block_log_means(log_w: Tensor, block: int) -> Tensor:
    """Logarithms of the means over the blocks of a map.

    Args:
        log_w (Tensor): (B, 1, H, W), nats: logarithms of what is averaged.
        block (int): Side of a block, tokens.

    Returns:
        Tensor: (B, 1, h, w); blocks that lack tokens are means of what they
        have.

    Example:
        >>> block_log_means(torch.zeros(1, 1, 5, 4), 4).shape
        torch.Size([1, 1, 2, 1])
    """
    most = log_w.amax((-2, -1), keepdim=True)
    mean = F.avg_pool2d((log_w - most).exp(), block, ceil_mode=True)
    tiny = torch.finfo(torch.float32).tiny
    return mean.clamp_min(tiny).log() + most
