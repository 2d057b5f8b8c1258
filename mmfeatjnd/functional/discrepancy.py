"""Differentiable task discrepancies D_t between clean and perturbed output.

FeatJND (arXiv 2601.21933) replaces the drop in task performance by a
differentiable discrepancy and leaves it open; these are ours. DMV-JND
(arXiv 2102.08168) uses the cross entropy to the classifier's own label.

A NaN in either prediction makes the discrepancy NaN; a class that the host
rules out with a logit of minus infinity adds nothing.
"""
import torch
from torch import Tensor
from torch.nn import functional as F


def _check_classes(logits: Tensor) -> None:
    if logits.size(1) < 2:
        raise ValueError(
            'the softmax over one class is always 1, whatever its logit: '
            f'logits of shape {tuple(logits.shape)} need '
            'binary_kl_divergence or binary_cross_entropy')


def expected_ratio(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """p log(p / q); 0 where p is."""
    return p * torch.where(p == 0, 0.0, log_p - log_q)


def kl_divergence(clean: Tensor,
                  perturbed: Tensor,
                  temperature: float = 1.0) -> Tensor:
    """Divergence KL(softmax(clean) || softmax(perturbed)), mean over the
    predictions.

    Args:
        clean (Tensor): Logits, (B, K) or (B, K, H, W).
        perturbed (Tensor): Logits of the same shape.
        temperature (float): Divides both logits. Defaults to 1.0.

    Returns:
        Tensor: Scalar, nats per image or per pixel, >= 0.

    Raises:
        ValueError: There is one class only.

    Example:
        >>> z = torch.tensor([[0.0, 0.0], [1.0, 2.0]])  # (B, K)
        >>> kl_divergence(z, z)
        tensor(0.)
    """
    _check_classes(clean)
    log_p = F.log_softmax(clean.float() / temperature, 1)
    log_q = F.log_softmax(perturbed.float() / temperature, 1)
    return expected_ratio(log_p.exp(), log_p, log_q).sum(1).mean()


def cross_entropy(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Cross entropy of the perturbed output to the clean top-1 label.

    Args:
        clean (Tensor): Logits, (B, K) or (B, K, H, W).
        perturbed (Tensor): Logits of the same shape.

    Returns:
        Tensor: Scalar, nats per image or per pixel, >= 0.

    Raises:
        ValueError: There is one class only.

    Example:
        >>> clean = torch.tensor([[1.0, 0.0]])
        >>> cross_entropy(clean, torch.zeros(1, 2))  # log 2
        tensor(0.6931)
    """
    _check_classes(clean)
    loss = F.cross_entropy(perturbed.float(), clean.argmax(1))
    # which is the largest of a NaN and others is no answer
    return torch.where(clean.isnan().any(), torch.nan, loss)


def binary_kl_divergence(clean: Tensor,
                         perturbed: Tensor,
                         temperature: float = 1.0) -> Tensor:
    r"""KL divergence between independent yes-or-no predictions, for hosts that
    put a sigmoid on every logit: several labels an image, or one class a
    pixel.

    .. math:: \sum_k p_k \log\frac{p_k}{q_k} + (1 - p_k)
        \log\frac{1 - p_k}{1 - q_k}, \quad p = \sigma(z),\
        q = \sigma(\hat z)

    Args:
        clean (Tensor): Logits z, (B, K) or (B, K, H, W).
        perturbed (Tensor): Logits of the same shape.
        temperature (float): Divides both logits. Defaults to 1.0.

    Returns:
        Tensor: Scalar, nats per image or per pixel, >= 0.

    Example:
        >>> z = torch.tensor([[0.0], [1.0]])
        >>> float(binary_kl_divergence(z, z))
        0.0
    """
    z, w = clean.float() / temperature, perturbed.float() / temperature
    p = z.sigmoid()
    kl = expected_ratio(p, F.logsigmoid(z), F.logsigmoid(w))
    kl = kl + expected_ratio(1 - p, F.logsigmoid(-z), F.logsigmoid(-w))
    return kl.sum(1).mean()


def binary_cross_entropy(clean: Tensor,
                         perturbed: Tensor,
                         threshold: float = 0.5) -> Tensor:
    """Cross entropy of yes-or-no predictions to the clean answers.

    Args:
        clean (Tensor): Logits, (B, K) or (B, K, H, W).
        perturbed (Tensor): Logits of the same shape.
        threshold (float): Probability above which the host says yes. Defaults
            to 0.5.

    Returns:
        Tensor: Scalar, nats per image or per pixel, >= 0.

    Example:
        >>> z = torch.zeros(1, 1)
        >>> round(float(binary_cross_entropy(z + 1, z)), 4)  # log 2
        0.6931
    """
    yes = (clean.float().sigmoid() > threshold).float()
    loss = F.binary_cross_entropy_with_logits(
        perturbed.float(), yes, reduction='none')
    loss = loss.sum(1).mean()
    return torch.where(clean.isnan().any(), torch.nan, loss)
