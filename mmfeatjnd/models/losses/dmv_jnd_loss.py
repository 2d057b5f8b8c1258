"""DMV-JND's training objective."""
from typing import Dict, Sequence

import torch
from torch import Tensor, nn

from mmfeatjnd.functional.dmv_jnd import (
    READINGS,
    distribution_loss,
    magnitude_loss,
    mean_magnitude,
    target_magnitude,
)
from mmfeatjnd.registry import MODELS


@MODELS.register_module()
class DMVJNDLoss(nn.Module):
    r"""Loss1 + alpha Loss2 + beta Loss3 of DMV-JND (arXiv 2102.08168, eq. 7).

    The classifiers keep their labels, the JND is as large as the attention
    leaves room for, and it lies where nothing attends.

    Args:
        alpha (float): Weight of the magnitude loss, >= 0. Defaults to 1.
        beta (float): Weight of the distribution loss, >= 0. Defaults to 1.
        target_scale (float): Factor of the target N, > 0; draws the tolerance
            curve. Ours. Defaults to 1: the paper's.
        distribution (str): How Loss3 is read, 'absolute', 'signed' or
            'centred'; see
            :func:`mmfeatjnd.functional.dmv_jnd.distribution_loss`. Defaults
            to 'absolute'.

    Raises:
        ValueError: A weight or scale out of range, or an unknown reading.
    """

    def __init__(self,
                 alpha: float = 1.0,
                 beta: float = 1.0,
                 target_scale: float = 1.0,
                 distribution: str = 'absolute') -> None:
        super().__init__()
        if min(alpha, beta) < 0 or target_scale <= 0:
            raise ValueError(
                'DMVJNDLoss: alpha and beta must be >= 0 and target_scale > '
                f'0, but got {alpha}, {beta} and {target_scale}')
        self.alpha = alpha
        self.beta = beta
        self.target_scale = target_scale
        if distribution not in READINGS:
            raise ValueError(f'DMVJNDLoss: distribution must be one of '
                             f'{READINGS}, but got {distribution!r}')
        self.distribution = distribution

    def forward(self, task_losses: Sequence[Tensor], jnd: Tensor,
                attention: Tensor) -> Dict[str, Tensor]:
        """Weigh the three losses.

        Args:
            task_losses (Sequence[Tensor]): A scalar of each task, eq. (8):
                of a classifier the cross-entropy on x + e against its label
                on x. Their mean is Loss1, eq. (9).
            jnd (Tensor): e, (B, C, H, W).
            attention (Tensor): c, (B, 1, H, W), in [0, 1].

        Returns:
            dict: ``loss_task``, ``loss_magnitude`` and ``loss_distribution``,
            to be summed and minimised, and for the log ``jnd_magnitude``
            (mean N0) and ``jnd_target`` (mean N); all are scalars.
        """
        target = target_magnitude(attention, self.target_scale)
        magnitude = mean_magnitude(jnd)
        return dict(
            loss_task=torch.stack(list(task_losses)).mean(),
            loss_magnitude=self.alpha * magnitude_loss(magnitude, target),
            loss_distribution=self.beta *
            distribution_loss(jnd, attention, self.distribution),
            jnd_magnitude=magnitude.detach().mean(),
            jnd_target=target.detach().mean())
