r"""The equations of DMV-JND (Jin et al., arXiv 2102.08168), on tensors.

Numbers in brackets are the paper's. An image x (B, C, H, W) is normalized by
mean and standard deviation 0.5, so that it lies in [-1, 1]; the JND e has its
shape, and the attention c is (B, 1, H, W) in [0, 1]. All are floating. The
images of a batch have one size; see
:func:`mmfeatjnd.functional.images.group_by_size` for others.
"""
from typing import Sequence

import torch
from torch import Tensor

Q = 1e-10  # of eq. (13), printed as "1^-10"


# ---------------------------------------------------------------- attention
def class_activation_map(feature: Tensor, weight: Tensor,
                         label: Tensor) -> Tensor:
    r"""CAM of a classifier that ends in global average pooling and a linear
    layer: :math:`M_c = \sum_k w_k^c f_k` (Zhou et al., arXiv 1512.04150).

    Args:
        feature (Tensor): What is pooled, (B, K, h, w).
        weight (Tensor): Weight of the linear layer, (classes, K).
        label (Tensor): The class whose map is wanted, (B,), int64.

    Returns:
        Tensor: (B, 1, h, w), of any range.

    Example:
        >>> feature, weight = torch.rand(2, 8, 4, 4), torch.rand(10, 8)
        >>> class_activation_map(feature, weight, torch.tensor([3, 7])).shape
        torch.Size([2, 1, 4, 4])
    """
    # not einsum, which autocast would round to half precision
    weight = weight[label][:, :, None, None]
    return (weight * feature).sum(1, keepdim=True)


def normalize_attention(attention: Tensor) -> Tensor:
    """Stretch each image's map to [0, 1]. The paper says the range, not how;
    this is ours.

    Args:
        attention (Tensor): (B, 1, H, W).

    Returns:
        Tensor: The same shape; 0 where a map is constant.

    Example:
        >>> normalize_attention(torch.tensor([-1., 0., 3.]).view(1, 1, 1, 3))
        tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """
    dims = (1, 2, 3)
    low = attention.amin(dims, keepdim=True)
    span = attention.amax(dims, keepdim=True) - low
    return (attention - low) / torch.where(span > 0, span, 1.0)


def merge_attention(maps: Sequence[Tensor]) -> Tensor:
    """Eq. (2): the mean of the tasks' maps.

    Args:
        maps (Sequence[Tensor]): (B, 1, H, W) each, in [0, 1].

    Returns:
        Tensor: c, (B, 1, H, W), in [0, 1].

    Example:
        >>> merge_attention([torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)])
        tensor([[[[0.5000, 0.5000]]]])
    """
    return torch.stack(list(maps)).mean(0)


# -------------------------------------------------------------------- losses
def target_magnitude(attention: Tensor, scale: float = 1.0) -> Tensor:
    """Eq. (10) and (11): N = 1 - mean(c), times a scale that is ours.

    Args:
        attention (Tensor): c, (B, 1, H, W), in [0, 1].
        scale (float): Factor that draws the tolerance curve, > 0. Defaults to
            1: the paper's.

    Returns:
        Tensor: N, (B,), in [0, ``scale``].

    Example:
        >>> target_magnitude(torch.full((2, 1, 4, 4), 0.25))
        tensor([0.7500, 0.7500])
    """
    return scale * (1 - attention.mean((1, 2, 3)))


def mean_magnitude(jnd: Tensor) -> Tensor:
    """Eq. (12): N0 = mean |e| over pixels and channels.

    Args:
        jnd (Tensor): e, (B, C, H, W).

    Returns:
        Tensor: N0, (B,), >= 0.

    Example:
        >>> mean_magnitude(torch.tensor([1., -0.5]).view(1, 1, 1, 2))
        tensor([0.7500])
    """
    return jnd.abs().mean((1, 2, 3))


def magnitude_loss(magnitude: Tensor, target: Tensor) -> Tensor:
    r"""Eq. (13), Loss2: :math:`\ln\frac{N^2 + N_0^2 + q}{2 N N_0 + q}`.

    0 where N0 = N, and the same for N0 = rN as for N0 = N / r.

    Args:
        magnitude (Tensor): N0, (B,), >= 0.
        target (Tensor): N, (B,), >= 0.

    Returns:
        Tensor: Scalar, the mean over the images.

    Example:
        >>> n = torch.tensor([0.5])
        >>> magnitude_loss(n, n).item()
        0.0
        >>> round(magnitude_loss(n / 2, n).item(), 4)  # ln(1.25)
        0.2231
    """
    n, n0 = target, magnitude
    return ((n.square() + n0.square() + Q).log() -
            (2 * n * n0 + Q).log()).mean()


#: How eq. (15) is read; see :func:`distribution_loss`.
READINGS = ('absolute', 'signed', 'centred')


def distribution_loss(jnd: Tensor,
                      attention: Tensor,
                      reading: str = 'absolute') -> Tensor:
    r"""Eq. (14) and (15), Loss3: :math:`\langle \mathrm{softmax}(c), e
    \rangle`.

    - 'signed': as printed. It has no lower bound but that of e, and darkens
      images.
    - 'absolute': with \|e\|. It pulls at the magnitude as hard as eq. (13)
      does: with alpha = beta = 1 and N = 0.6 they meet at N0 = 0.4.
    - 'centred': :math:`\langle \mathrm{softmax}(c) - 1 / HW, |e| \rangle`,
      which only moves \|e\| from where the tasks look to where they do not,
      and leaves its mean to eq. (13). Ours.

    Over several channels the mean is taken (ours).

    Args:
        jnd (Tensor): e, (B, C, H, W).
        attention (Tensor): c, (B, 1, H, W), in [0, 1].
        reading (str): One of the above. Defaults to 'absolute'.

    Returns:
        Tensor: Scalar, the mean over the images.

    Example:
        >>> jnd, even = torch.full((2, 3, 4, 4), -0.5), torch.ones(2, 1, 4, 4)
        >>> [distribution_loss(jnd, even, how).item() for how in READINGS]
        [0.5, -0.5, 0.0]
    """
    v = attention.flatten(1).softmax(1)
    e = jnd if reading == 'signed' else jnd.abs()
    loss = (v * e.mean(1).flatten(1)).sum(1)
    if reading == 'centred':
        loss = loss - e.mean((1, 2, 3))
    return loss.mean()


# ------------------------------------------------------------------- metrics
def agreement(labels: Tensor, reference: Tensor) -> Tensor:
    """``pre`` of eq. (16), whose mean over the images is the RCA: 1 where the
    label on x + e is that on x.

    Args:
        labels (Tensor): Labels on x + e, (B,), integers.
        reference (Tensor): Labels on x, (B,), integers.

    Returns:
        Tensor: (B,), 0 or 1, float32.

    Example:
        >>> agreement(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 0]))
        tensor([1., 1., 0.])
    """
    return (labels == reference).float()


def mean_squared_error(jnd: Tensor) -> Tensor:
    """Mean squared error of x + e against x, over pixels and channels.

    Args:
        jnd (Tensor): e, (B, C, H, W).

    Returns:
        Tensor: (B,), in the unit of e squared.

    Example:
        >>> mean_squared_error(torch.full((2, 3, 4, 4), -0.5))
        tensor([0.2500, 0.2500])
    """
    return jnd.square().mean((1, 2, 3))


def psnr(mse: Tensor, data_range: float = 2.0) -> Tensor:
    r"""PSNR, :math:`10 \log_{10}(R^2 / \mathrm{MSE})`, in dB.

    Args:
        mse (Tensor): Mean squared error, see :func:`mean_squared_error`.
        data_range (float): R: 2 in [-1, 1], 255 for 8 bit. Defaults to 2.

    Returns:
        Tensor: The shape of ``mse``; infinite for equal images.

    Example:
        >>> psnr(torch.tensor([0.04, 4.]))
        tensor([20.,  0.])
    """
    return 10 * (data_range**2 / mse).log10()
