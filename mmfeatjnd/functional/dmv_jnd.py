r"""The equations of DMV-JND (Jin et al., arXiv 2102.08168), on tensors.

Numbers in brackets are the paper's. An image x (B, C, H, W) is normalized by
mean and standard deviation 0.5, so that it lies in [-1, 1]; the JND e has its
shape, and the attention c is (B, 1, H, W) in [0, 1]. Where images of several
sizes were padded to one, ``content``, (B, 1, H, W), bool, says what is image.
"""
from typing import Optional, Sequence

import torch
from torch import Tensor

Q = 1e-10  # of eq. (13), printed as "1^-10"


# ---------------------------------------------------------------- attention
def class_activation_map(feature: Tensor, weight: Tensor,
                         label: Tensor) -> Tensor:
    r"""CAM of a classifier that ends in global average pooling and a linear
    layer: :math:`M_c = \sum_k w_k^c f_k` (Zhou et al., arXiv 1512.04150).

    Args:
        feature (Tensor): (B, K, h, w), what is pooled.
        weight (Tensor): (classes, K), of the linear layer.
        label (Tensor): (B,), int64: the class whose map is wanted.

    Returns:
        Tensor: (B, 1, h, w), of any range.
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
    """
    dims = (1, 2, 3)
    low = attention.amin(dims, keepdim=True)
    span = attention.amax(dims, keepdim=True) - low
    return (attention - low) / torch.where(span > 0, span, 1.0)


def merge_attention(maps: Sequence[Tensor]) -> Tensor:
    """Eq. (2): the mean of the classifiers' maps.

    Args:
        maps (Sequence[Tensor]): (B, 1, H, W) each.
    """
    return torch.stack(list(maps)).mean(0)


# -------------------------------------------------------------------- losses
def _mean(x: Tensor, content: Optional[Tensor]) -> Tensor:
    if content is None:
        return x.mean((1, 2, 3))
    area = content.sum((1, 2, 3)) * (x.size(1) / content.size(1))
    return (x * content).sum((1, 2, 3)) / area


def target_magnitude(attention: Tensor,
                     scale: float = 1.0,
                     content: Optional[Tensor] = None) -> Tensor:
    """Eq. (10) and (11): N = 1 - mean(c), times a scale that is ours.

    Args:
        attention (Tensor): c, (B, 1, H, W).
        scale (float): Draws the tolerance curve. Defaults to 1: the paper's.
        content (Tensor, optional): Where the image is. Defaults to None:
            everywhere.

    Returns:
        Tensor: N, (B,).
    """
    return scale * (1 - _mean(attention, content))


def mean_magnitude(jnd: Tensor,
                   content: Optional[Tensor] = None) -> Tensor:
    """Eq. (12): N0 = mean |e| over pixels and channels.

    Args:
        jnd (Tensor): e, (B, C, H, W).
        content (Tensor, optional): Where the image is. Defaults to None:
            everywhere.

    Returns:
        Tensor: N0, (B,).
    """
    return _mean(jnd.abs(), content)


def magnitude_loss(magnitude: Tensor, target: Tensor) -> Tensor:
    r"""Eq. (13), Loss2: :math:`\ln\frac{N^2 + N_0^2 + q}{2 N N_0 + q}`.

    0 where N0 = N, and the same for N0 = rN as for N0 = N / r.

    Args:
        magnitude (Tensor): N0, (B,).
        target (Tensor): N, (B,).

    Returns:
        Tensor: Scalar, the mean over the images.
    """
    n, n0 = target, magnitude
    return ((n.square() + n0.square() + Q).log() -
            (2 * n * n0 + Q).log()).mean()


#: How eq. (15) is read; see :func:`distribution_loss`.
READINGS = ('absolute', 'signed', 'centred')


def distribution_loss(jnd: Tensor,
                      attention: Tensor,
                      reading: str = 'absolute',
                      content: Optional[Tensor] = None) -> Tensor:
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
        attention (Tensor): c, (B, 1, H, W).
        reading (str): One of the above. Defaults to 'absolute'.
        content (Tensor, optional): Where the image is. Defaults to None:
            everywhere.

    Returns:
        Tensor: Scalar, the mean over the images.
    """
    if content is not None:
        attention = attention.masked_fill(~content, -torch.inf)
    v = attention.flatten(1).softmax(1)
    e = jnd if reading == 'signed' else jnd.abs()
    loss = (v * e.mean(1).flatten(1)).sum(1)
    if reading == 'centred':
        loss = loss - _mean(e, content)
    return loss.mean()


# ------------------------------------------------------------------- metrics
def agreement(labels: Tensor, reference: Tensor) -> Tensor:
    """``pre`` of eq. (16), whose mean over the images is the RCA: 1 where the
    label on x + e is that on x.

    Args:
        labels (Tensor): (P,), on x + e.
        reference (Tensor): (P,), on x.

    Returns:
        Tensor: (P,), 0 or 1, float32.
    """
    return (labels == reference).float()


def mean_squared_error(jnd: Tensor,
                       content: Optional[Tensor] = None) -> Tensor:
    """Of each image, over pixels and channels.

    Args:
        jnd (Tensor): e, (B, C, H, W).
        content (Tensor, optional): Where the image is. Defaults to None:
            everywhere.

    Returns:
        Tensor: (B,).
    """
    return _mean(jnd.square(), content)


def psnr(mse: Tensor, data_range: float = 2.0) -> Tensor:
    r""":math:`10 \log_{10}(R^2 / \mathrm{MSE})`, in dB.

    Args:
        mse (Tensor): See :func:`mean_squared_error`.
        data_range (float): R: 2 in [-1, 1], 255 for 8 bit. Defaults to 2.

    Returns:
        Tensor: The shape of ``mse``; infinite for equal images.
    """
    return 10 * (data_range**2 / mse).log10()
