"""Differentiable task discrepancies D_t between clean and perturbed output.

FeatJND (arXiv 2601.21933) replaces the drop in task performance by a
differentiable discrepancy and leaves it open; these two are ours. DMV-JND
(arXiv 2102.08168) uses the cross entropy to the classifier's own label.
"""
from torch import Tensor
from torch.nn import functional as F


def kl_divergence(clean: Tensor,
                  perturbed: Tensor,
                  temperature: float = 1.0) -> Tensor:
    """KL(softmax(clean) || softmax(perturbed)), mean over the predictions.

    Args:
        clean (Tensor): Logits, (B, K) or (B, K, H, W).
        perturbed (Tensor): Logits of the same shape.
        temperature (float): Divides both logits. Defaults to 1.0.

    Returns:
        Tensor: Scalar, nats per image or per pixel, >= 0.
    """
    log_p = F.log_softmax(clean.float() / temperature, 1)
    log_q = F.log_softmax(perturbed.float() / temperature, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def cross_entropy(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Cross entropy of the perturbed output to the clean top-1 label.

    Args:
        clean (Tensor): Logits, (B, K) or (B, K, H, W).
        perturbed (Tensor): Logits of the same shape.

    Returns:
        Tensor: Scalar, nats per image or per pixel, >= 0.
    """
    return F.cross_entropy(perturbed.float(), clean.argmax(1))
