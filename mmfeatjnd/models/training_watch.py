"""Whether a training of estimators does what it seems to do."""
import logging
from typing import List, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor

from .run import Run

#: Steps between two checks, each of which waits for the device.
INTERVAL = 50


class TrainingWatch:
    """Notes what goes wrong on the device, and raises now and then.

    A check every 50 steps, and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._unchecked = 0
        self._since: Optional[Tensor] = None
        self._discrepancy: Optional[Tensor] = None
        self._nonzero: Optional[Tensor] = None

    @property
    def begun(self) -> bool:
        """bool: Whether a step was noted."""
        return self._steps > 0

    @torch.no_grad()
    def step(self, neck, run: Run, discrepancy: Tensor) -> None:
        """Note one step, without waiting for the device.

        Args:
            neck (FeatJNDNeck): Holds the estimators.
            run (Run): Run of the perturbed pass.
            discrepancy (Tensor): D_t, a scalar.
        """
        if run.faults is None:  # no region in the whole batch
            broken = torch.zeros_like(discrepancy, dtype=torch.int64)
        else:
            broken = run.faults[1].max()
        if self._since is None:
            self._since = broken.new_zeros(2)  # level + 1, and since when
            self._discrepancy = torch.zeros_like(discrepancy)
            self._nonzero = torch.zeros_like(broken)
        self._steps += 1
        self._unchecked += 1
        now = torch.stack([broken, torch.full_like(broken, self._steps)])
        # a step that mixed precision skips must not count
        self._since = torch.where(
            broken == 0, torch.zeros_like(now),
            torch.where(self._since[0] > 0, self._since, now))
        self._discrepancy += discrepancy.nan_to_num(0)
        self._nonzero += discrepancy != 0
        if self._steps == 1 or self._unchecked >= INTERVAL:
            self.check(neck)

    @torch.no_grad()
    def check(self, neck) -> None:
        """Raise if the estimators have diverged, do not change, or do nothing
        that is noticed. Waits for the device.

        Args:
            neck (FeatJNDNeck): Holds the estimators.
        """
        if not self.begun:
            return
        level, since = self._since.tolist()
        bad = _diverged(neck)
        if bad:
            where = f' since step {since}' if level else ''
            raise ValueError(
                f'FeatJND: the estimator of level(s) {bad} has diverged'
                f'{where}: NaN or infinite values (step {self._steps} of this '
                'process). Nothing of it was saved. Use a lower learning '
                'rate, or clip_grad, and resume from the last checkpoint.')
        if level and since < self._steps:
            raise ValueError(
                f'FeatJND: the perturbed features of level {level - 1} are '
                f'NaN or infinite since step {since} (now step '
                f'{self._steps} of this process), with finite estimators: the '
                'numbers leave the range of the precision. Train in float32 '
                'or bfloat16.')
        if self._unchecked < INTERVAL:
            return
        steps, mean = self._unchecked, float(self._discrepancy)
        idle = not int(self._nonzero)
        self._unchecked = 0
        self._discrepancy.zero_()
        self._nonzero.zero_()
        if not any(e.trained for e in neck.active_estimators()):
            raise RuntimeError(
                f'FeatJND: in {self._steps} steps no parameter of an '
                'estimator has changed, although it ran. Is its learning rate '
                "0, e.g. by a paramwise_cfg whose custom_keys match 'neck'?")
        if idle:
            raise RuntimeError(
                f'FeatJND: the discrepancy was exactly 0 in {steps} steps: '
                'nothing that is done to the features is noticed. Does the '
                'prediction depend on this split? Use another one, or another '
                'discrepancy.')
        if mean < 0:
            print_log(
                f'FeatJND: the discrepancy was {mean / steps:.3g} on average '
                f'in {steps} steps: the host is surer of its targets than '
                'before. This is not rewarded. If it stays so, there is too '
                'little to notice: lower score_thr of PseudoGroundTruth, or '
                'use Annotation.',
                logger='current',
                level=logging.WARNING)


def _diverged(neck) -> List[int]:
    """The levels whose estimators are not finite."""
    active = list(neck.active_levels)
    sound = torch.stack([
        torch.stack([v.isfinite().all() for v in (*e.parameters(),
                                                   *e.channels.buffers())]).all()
        for e in map(neck.estimator_of, active)
    ])
    return [level for level, fine in zip(active, sound.tolist()) if not fine]
