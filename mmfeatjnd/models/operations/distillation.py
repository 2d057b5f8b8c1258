"""Training on the task's Fisher information: what the default JND learns."""
from typing import Dict, List, NamedTuple, Optional

import torch
from torch import Tensor

from mmfeatjnd.functional import log_sensitivity
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models.run import Run, Visit
from mmfeatjnd.registry import MODELS


class Regression(NamedTuple):
    """What is kept of a visit: log w of the tokens, and its prediction."""
    level: int
    wanted: Tensor
    predicted: Tensor
    images: Tensor


@MODELS.register_module()
class Distillation:
    r"""The estimator learns the sensitivity of every token from the feature
    alone.

    .. math:: \mathrm{mean}_t (\log \hat w_t - \log w_t)^2, \quad
        w_t = \sum_c \sigma_c^2 \mathrm{E}[g_{ct}^2]

    with draws of the task's gradient g, see
    :func:`mmfeatjnd.models.task_gradients`: no annotations, no constraint to
    hold, nothing that could run away. The logarithm weighs all tokens alike;
    what its mean lacks for the mean of w is counted on the side. Ours.

    Args:
        draws (int): Number of gradients for each image. Defaults to 2.
    """

    #: It needs neither a discrepancy nor an objective.
    distils = True
    modes = ('sensitivity', )

    def __init__(self, draws: int = 2) -> None:
        if draws < 1:
            raise ValueError(
                f'Distillation: draws must be at least 1, but got {draws}')
        self.draws = draws

    def step(self, model, inputs: Tensor, data_samples: Optional[list],
             seed: int) -> tuple:
        """Losses of one batch.

        Args:
            model (FeatJNDMixin): The host with its neck.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
            seed (int): Seed of the draws.

        Returns:
            tuple: ``loss_jnd_regression`` and for the log
            ``jnd_sensitivity`` (mean log w, nats) and ``jnd_error`` (RMS error
            of log w), a dict; the run; and what the task notices, a scalar.
        """
        from mmfeatjnd.models.sensitivity import mean_square, task_gradients
        neck = model.featjnd_neck
        features, draws = task_gradients(neck, inputs, data_samples,
                                         self.draws, seed)
        run = Run(
            self,
            neck,
            data_samples or range(len(inputs)),
            seed=seed,
            content=adapter_of(model).content(model, inputs, data_samples,
                                              True),
            sensitivity=mean_square(draws))
        for level, calls in features.items():
            for feature in calls:
                run.apply(feature, level)
        run.finish()
        return self.losses(run), run, self.noticed(run)

    def begin(self, parts: List[Tensor], level: int, neck) -> None:
        """See :meth:`BaseTraining.begin`."""
        neck.estimator_of(level).follow(parts)

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        """Keep what a level is to be taught; the feature stays."""
        estimator = visit.neck.estimator_of(level)
        wanted = log_sensitivity(visit.sensitivity, estimator.channels.std)
        visit.run.kept.append(
            Regression(level, wanted, estimator.log_sensitivity(feature),
                       visit.images))
        return feature

    def finish(self, run: Run) -> None:
        """The statistics follow, once all levels are known."""
        tokens = {level: 0.0 for level in run.neck.active_levels}
        for kept in run.kept:
            tokens[kept.level] += kept.wanted.numel()
        whole = max(sum(tokens.values()), 1.0)
        for level, number in tokens.items():
            estimator = run.neck.estimator_of(level)
            if estimator.training:
                estimator.known.follow([
                    (r.wanted, r.predicted.detach(), r.images)
                    for r in run.kept if r.level == level
                ], number / whole)

    def losses(self, run: Run) -> Dict[str, Tensor]:
        """Mean square error of log w, every level as much as the others."""
        if not run.kept:  # a batch without any region
            nothing = run.neck.estimators[0].known.gain.detach() * 0
            return dict(
                loss_jnd_regression=nothing,
                jnd_sensitivity=nothing,
                jnd_error=nothing)
        levels = sorted({r.level for r in run.kept})
        total = wanted = 0.0
        for level in levels:
            own = [r for r in run.kept if r.level == level]
            number = sum(r.wanted.numel() for r in own)
            total = total + sum(
                (r.predicted - r.wanted).square().sum() for r in own) / number
            wanted = wanted + sum(r.wanted.sum() for r in own) / number
        loss = total / len(levels)
        return dict(
            loss_jnd_regression=loss,
            jnd_sensitivity=wanted / len(levels),
            jnd_error=loss.detach().sqrt())

    def noticed(self, run: Run) -> Tensor:
        """Mean sensitivity, a scalar: 0 where nothing depends on the
        split."""
        if not run.kept:
            return torch.zeros(())
        tiny = torch.finfo(torch.float32).tiny
        return sum(
            (r.wanted.exp() * (r.wanted.exp() > tiny)).mean().detach()
            for r in run.kept)
