"""Measure the task metric against bits, or at equal noise."""
from itertools import product
from typing import Dict, List, Sequence, Tuple, Union

import torch
from mmengine.config import Config
from torch import Tensor

from mmfeatjnd.functional import bisect_scale, code_length
from mmfeatjnd.models import Quantization
from .curve import Bench, check_seeds

Policy = Union[str, dict]


class _Calibration:
    """Finds one scale for all images, so that they take so many bits on
    average."""

    def __init__(self, bench: Bench, num_images: int) -> None:
        self.bench = bench
        self.num_images = num_images
        self.cases: Dict[int, list] = {}

    def observe(self, operations: List[Tuple[int, Quantization]]) -> None:
        """Keep what every policy makes of the first images."""
        sensitivity = any(o.needs_sensitivity for _, o in operations)
        seen = 0
        for batch in self.bench.dataloader():
            with self.bench.batch(batch, sensitivity) as (clean, predict):
                for i, operation in operations:
                    self.bench.use(i)
                    predict(_Observer(operation, self._kept(operation)))
                seen += len(clean)
            if seen >= self.num_images:
                break

    def _kept(self, operation: Quantization) -> list:
        return self.cases.setdefault(id(operation), [])

    @torch.no_grad()
    def scale(self, operation: Quantization, bits: float) -> float:
        """The scale at which the images take ``bits`` per element."""

        def rate(scale: Tensor) -> Tensor:
            length = elements = 0
            for feature, at in self._kept(operation):
                allocation = at(scale.expand(len(feature)))
                level, _ = operation.apply(feature, allocation)
                length = length + code_length(level, allocation.steps).sum()
                elements += feature.numel()
            return length[None] / elements

        device = self._kept(operation)[0][0].device
        target = torch.tensor([bits], device=device)
        return float(bisect_scale(rate, target, increasing=False,
                                  iterations=14))


class _Observer:
    """Stands in for an operation and keeps features and allocations."""

    def __init__(self, operation: Quantization, kept: list) -> None:
        self.operation = operation
        self.kept = kept

    def start(self, *args) -> None:
        self.operation.start(*args)

    def __call__(self, feature: Tensor, level: int, neck) -> Tensor:
        at = self.operation.allocate(feature, level, neck)
        self.kept.append((feature.clone(), at))
        return feature


def measure_rates(cfg: Config,
                  checkpoint: str,
                  policies: Dict[str, Policy],
                  bits: Sequence[float] = (),
                  noise_budgets: Sequence[float] = (),
                  seeds: Sequence[int] = (0, ),
                  estimators: Sequence[str] = (),
                  calibration_images: int = 64,
                  coded: bool = True) -> List[dict]:
    """The task metric of every policy at several rates and noise budgets.

    For a rate, one scale of the policy's steps is set for the whole data set,
    so that the first images take about that many bits; neither annotations
    nor predictions are looked at, and the row says what was measured. For a
    noise budget, every image and level gets that NRMSE (measured), the
    paper's protocol.

    Args:
        cfg (Config): See :class:`Bench`.
        checkpoint (str): See :class:`Bench`.
        policies (dict): Name in the rows to a policy, see
            :class:`mmfeatjnd.models.Quantization`.
        bits (Sequence[float]): Bits per element to aim at. Defaults to ().
        noise_budgets (Sequence[float]): NRMSE of each image and level.
            Defaults to ().
        seeds (Sequence[int]): Seeds of the policies with a random part or an
            estimator; the others are measured once. Defaults to (0,).
        estimators (Sequence[str]): Estimator files, one for each seed.
            Defaults to (): the checkpoint's.
        calibration_images (int): How many images the scale is found on.
            Defaults to 64.
        coded (bool): Write real bitstreams and count their bytes. Defaults to
            True.

    Returns:
        list[dict]: The rows, see :mod:`mmfeatjnd.evaluation.rate`. The first
        is the clean host.
    """
    check_seeds(seeds, estimators)
    bench = Bench(cfg, checkpoint, estimators)

    def create(name: str, seed: int, **kwargs) -> Quantization:
        return Quantization(policies[name], seed=seed, coded=coded, **kwargs)

    def runs(name: str, i: int) -> bool:
        # a further seed must not measure the same again
        policy = create(name, 0).policy
        return i == 0 or policy.random or (policy.needs_jnd
                                           and bool(estimators))

    cases = [(name, i, seed) for (i, seed), name in product(
        enumerate(seeds), policies) if runs(name, i)]
    settings = []
    if bits:
        calibration = _Calibration(bench, calibration_images)
        probes = [(i, create(name, seed)) for name, i, seed in cases]
        for _, probe in probes:
            probe.check(bench.neck)
        calibration.observe(probes)
        for (name, i, seed), (_, probe) in zip(cases, probes):
            for target in bits:
                scale = calibration.scale(probe, target)
                settings.append((name, target, i,
                                 create(name, seed, scale=scale)))
    for (name, i, seed), budget in product(cases, noise_budgets):
        settings.append((name, None, i,
                         create(name, seed, noise_budget=budget)))
    rows = bench.measure([(i, operation) for _, _, i, operation in settings])
    for row, (name, target, _, _) in zip(rows[1:], settings):
        row['policy'] = name
        row['bits'] = target
    return [dict(policy='clean', **rows[0])] + rows[1:]
