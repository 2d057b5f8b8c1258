"""What a host says, as distributions: one currency, nats, for every task.

A host's answer is a set of distributions over fixed proposals: a class is
categorical, objectness and a mask's pixels are yes or no, a box is Gaussian.
Three things follow from them: the divergence between two answers in nats, the
direction whose back-propagation gives the task's Fisher information at any
feature, and with it the noise that costs a given number of nats. Ours.
"""
from typing import Dict, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from .noise import gaussian_noise, view_keys

#: Streams of the noise that makes gradients: that of the features' noise has
#: others, and a few hundred distributions a draw have one each.
_STREAM = 1 << 22
_TERMS = 1 << 10


class Distribution(NamedTuple):
    """Independent distributions of one kind, of all images of a batch.

    Attributes:
        kind (str): 'categorical': a softmax over axis 1; 'bernoulli': a
            sigmoid on every value; 'gaussian': means, whose precision is a
            factor of the weight.
        value (Tensor): (R, K, ...) for R rows: logits, or means.
        images (Tensor, optional): (R,), int64: the image of each row, in
            their order. None: row i is image i.
        weight (Tensor, optional): >= 0, broadcastable to ``value``, with one
            element in axis 1 where it is categorical: how much of each counts
            (a box counts as far as there is an object). None: 1.

    Example:
        >>> answer = Distribution('categorical', torch.zeros(2, 10))
        >>> nats(dict(cls=answer), dict(cls=answer), 2)
        tensor([0., 0.])
    """
    kind: str
    value: Tensor
    images: Optional[Tensor] = None
    weight: Optional[Tensor] = None


#: Distributions by what they are of, such as 'class' and 'box'.
Terms = Dict[str, Distribution]


def expected_ratio(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """p log(p / q); 0 where p is, as for a class that a host rules out with
    a logit of minus infinity."""
    return p * torch.where(p == 0, 0.0, log_p - log_q)


def _divergence(clean: Distribution, value: Tensor) -> Tensor:
    """KL divergence of every distribution, with one element in axis 1 where
    it is categorical."""
    # the terms of a small divergence cancel: of many thousands the rounding
    # of single precision would be as large as what is measured
    a, b = clean.value.double(), value.double()
    if clean.kind == 'categorical':
        log_p, log_q = a.log_softmax(1), b.log_softmax(1)
        return expected_ratio(log_p.exp(), log_p, log_q).sum(1, keepdim=True)
    if clean.kind == 'gaussian':
        return (a - b).square() / 2
    p = a.sigmoid()
    return (expected_ratio(p, F.logsigmoid(a), F.logsigmoid(b)) +
            expected_ratio(1 - p, F.logsigmoid(-a), F.logsigmoid(-b)))


def nats(clean: Terms, other: Terms, batch_size: int) -> Tensor:
    r"""How far an answer is from the clean one.

    .. math:: D = \sum_k w_k\, \mathrm{KL}(p_k \| q_k)

    over all distributions of an image; Gaussians keep their width. Weights
    are those of the clean answer. A NaN in either makes that of its image NaN;
    a class that is ruled out with a logit of minus infinity adds nothing.

    Args:
        clean (dict): The clean answer.
        other (dict): The answer to changed features, over the same proposals.
        batch_size (int): Number of images B.

    Returns:
        Tensor: (B,), float32, >= 0, with the gradient of ``other``.

    Example:
        >>> a = Distribution('gaussian', torch.zeros(2, 4))
        >>> b = Distribution('gaussian', torch.ones(2, 4))
        >>> nats(dict(box=a), dict(box=b), 2)
        tensor([2., 2.])
    """
    total = None
    for name, answer in clean.items():
        value = other[name].value
        each = _by_image(answer, _divergence(answer, value), batch_size)
        total = each if total is None else total + each
    return total.clamp_min(0).float()


def _by_image(answer: Distribution, each: Tensor, batch_size: int) -> Tensor:
    """Weighted sums over the distributions of each image, (B,)."""
    if answer.weight is not None:
        each = each * answer.weight
    rows = each.flatten(1).sum(1)
    if answer.images is None:
        return rows
    return rows.new_zeros(batch_size).index_add(0, answer.images, rows)


def _root_of_fisher(answer: Distribution, noise: Tensor) -> Tensor:
    """The root of the Fisher information of the values, times noise."""
    value = answer.value.detach().float()
    if answer.kind == 'categorical':
        root = value.softmax(1).sqrt()
        noise = root * (noise - root * (root * noise).sum(1, keepdim=True))
    elif answer.kind == 'bernoulli':
        noise = (value.sigmoid() * (-value).sigmoid()).sqrt() * noise
    if answer.weight is not None:
        noise = noise * answer.weight.sqrt()
    return noise


def score(live: Terms, keys: Tensor, stream: int = 0) -> Tensor:
    r"""A scalar whose gradient at the features has the task's Fisher
    information as its second moment.

    With the Jacobian J of the values, the information F of their
    distributions and white noise v, :math:`g = J^T F^{1/2} v` has
    :math:`\mathrm{E}[g g^T] = J^T F J`, the Fisher information of the
    features: as that of drawn labels, without the rare and large gradients
    of an unlikely one.

    Args:
        live (dict): The answer, with a gradient to the features.
        keys (Tensor): (B,), int64, keys of the noise.
        stream (int): Every stream is another draw. Defaults to 0.

    Returns:
        Tensor: A scalar, the sum over the images.

    Example:
        >>> from mmfeatjnd.functional import image_keys
        >>> z = torch.zeros(1, 2, requires_grad=True)
        >>> answer = dict(cls=Distribution('bernoulli', z))
        >>> score(answer, image_keys([1])).backward()
        >>> z.grad.shape
        torch.Size([1, 2])
    """
    total = 0.0
    for i, answer in enumerate(live.values()):
        value = answer.value
        if not len(value):  # no proposals
            continue
        own = keys
        if answer.images is not None:
            first = torch.searchsorted(answer.images, answer.images)
            views = torch.arange(len(value), device=value.device) - first
            own = view_keys(keys[answer.images], views)
        noise = gaussian_noise(own, value.shape[1:],
                               _STREAM + stream * _TERMS + i)
        total = total + (_root_of_fisher(answer, noise) * value.float()).sum()
    return total


def uncertainty(answer: Terms, batch_size: int) -> Tensor:
    r"""How little sure a host is of an image: what its answer tells of how
    much noise the image bears.

    .. math:: u = \sum_k w_k \left(1 - \sum_i p_{ki}^2\right)

    over the distributions of classes, yes or no among them: the chance that
    two draws of the answer differ, summed up. The width of a box is fixed, so
    it says nothing. Ours.

    Args:
        answer (dict): The clean answer.
        batch_size (int): Number of images B.

    Returns:
        Tensor: (B,), float32, >= 0.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
        >>> answer = dict(cls=Distribution('categorical', logits))
        >>> uncertainty(answer, 2).round(decimals=3)
        tensor([0.5000, 0.0000])
    """
    total = 0.0
    for each in answer.values():
        value = each.value.detach().float()
        if each.kind == 'gaussian':
            continue
        if each.kind == 'categorical':
            found = 1 - value.softmax(1).square().sum(1, keepdim=True)
        else:
            found = 2 * value.sigmoid() * (-value).sigmoid()
        total = total + _by_image(each, found, batch_size)
    return total
