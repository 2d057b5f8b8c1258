"""Measure the task metric against bits, or at equal noise."""
import logging
import math
from itertools import product
from typing import Callable, Dict, List, Optional, Sequence, Union

import torch
from mmengine.config import Config
from mmengine.dist import (
    broadcast_object_list,
    get_world_size,
    is_distributed,
    is_main_process,
)
from torch.utils.data import DataLoader

from mmfeatjnd.models import FeatureRecorder, Quantization
from mmfeatjnd.models.operations.level_coding import level_bits
from mmfeatjnd.utils import log
from .curve import OperationTest, check_seeds, progress_bar
from .data import split_dataloader

Policy = Union[str, dict]
_OCTAVES = 12  # up: where a scale is looked for


def name_policies(policies: Sequence[Policy]) -> Dict[str, Policy]:
    """Names for the rows: the type, then what differs from the defaults.

    Args:
        policies (Sequence[str | dict]): See
            :class:`mmfeatjnd.models.Quantization`.

    Returns:
        dict: Name to policy: ``dict(type='featjnd', granularity='token')`` is
        'featjnd-token', ``dict(type='clip-uniform', bins=8)``
        'clip-uniform-8', a False stands as 'no-' and its key.

    Raises:
        ValueError: Two policies get the same name.

    Example:
        >>> list(name_policies(['range', dict(type='clip-uniform', bins=8)]))
        ['range', 'clip-uniform-8']
    """
    named: Dict[str, Policy] = {}
    for policy in policies:
        cfg = dict(type=policy) if isinstance(policy, str) else dict(policy)
        parts = [str(cfg.pop('type', None))]
        for key, value in cfg.items():
            key = key.replace('_', '-')
            if isinstance(value, bool):
                parts.append(key if value else f'no-{key}')
            else:
                parts.append(str(value))
        name = '-'.join(parts)
        if name in named:
            raise ValueError(f'two policies are named {name!r}: '
                             f'{named[name]!r} and {policy!r}. Leave one out.')
        named[name] = policy
    return named


class _Calibration:
    """Finds one scale for all images, so that they take so many bits per
    element together. In a process group every rank looks at all of them, in
    the same batches, as one process would."""

    def __init__(self, test: OperationTest, loader: DataLoader,
                 probes: Sequence[Quantization]) -> None:
        self.test = test
        recorder = FeatureRecorder(
            any(p.needs_sensitivity for p in probes),
            any(p.needs_uncertainty for p in probes), Quantization.margin)
        self.visits: List[tuple] = []
        loader = _undivided(loader)
        with progress_bar(len(loader)) as step:
            for batch in loader:
                with test.batch(batch, [recorder]) as (_, predict):
                    self.visits += predict(recorder)[1].kept
                step()
        test.neck.forget()

    @torch.no_grad()
    def scales(self, estimator: int, operation: Quantization,
               mean_bits: Sequence[float]) -> List[Optional[float]]:
        """The scales at which the images take so many bits per element; None
        where they never do. The same on every rank."""
        self.test.use(estimator)
        cases = [operation.coding(feature, visit, level)
                 for feature, level, visit in self.visits]
        elements = sum(case.feature.numel() for case in cases)
        known: Dict[float, float] = {}

        def measure(octave: float) -> float:
            if octave not in known:
                length = 0.0
                for case in cases:
                    scale = case.feature.new_full(
                        (len(case.feature), ), 2**octave, dtype=torch.float32)
                    quantized, _ = case.quantize(scale)
                    length += float(level_bits(quantized).sum())
                known[octave] = length / elements
            return known[octave]

        # no finer than saturates a symbol of any image
        finest = math.log2(max(
            float(case.limits()[0].max()) for case in cases))
        found = [_solve(measure, target, finest) for target in mean_bits]
        if is_distributed():  # devices need not round alike
            broadcast_object_list(found)
        return found


def _undivided(loader: DataLoader) -> DataLoader:
    """A data loader whose images are not shared out among the ranks."""
    if get_world_size() == 1:
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size or 1,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn)


def _solve(measure: Callable[[float], float],
           target: float,
           finest: float,
           iterations: int = 9) -> Optional[float]:
    """The scale at which a measurement, which falls with it, meets a target;
    None if it is out of reach.

    Unlike ``bisect_scale``, one number for all images: searched by octaves
    from 1, because every step costs a pass over them.
    """
    low = 0
    if measure(low) >= target:
        while measure(low + 1) >= target:
            low += 1
            if low >= _OCTAVES:
                return None
    else:
        while measure(low) < target:
            if low <= finest:
                return None
            low = max(low - 1, finest)
    high = low + 1.0
    for _ in range(iterations):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) >= target else \
            (low, middle)
    return 2**((low + high) / 2)


def measure_rates(cfg: Config,
                  checkpoint: str,
                  policies: Dict[str, Policy],
                  mean_bits: Sequence[float] = (),
                  noise_budgets: Sequence[float] = (),
                  seeds: Sequence[int] = (0, ),
                  estimators: Sequence[str] = (),
                  calibration_images: int = 64,
                  calibration_split: str = 'train',
                  coded: bool = True,
                  split: Optional[str] = None,
                  levels: Optional[Sequence[int]] = None,
                  nats: bool = False,
                  draws: int = 0) -> List[dict]:
    """The task metric of every policy at several rates and noise budgets.

    For a rate, one scale of the policy's steps is set for the whole data set,
    so that a random sample of training images takes that many bits; neither
    annotations nor predictions are looked at, and the row says what was
    measured. A policy that cannot take that many bits has no row there. For a
    noise budget, every image and level gets that NRMSE (measured), the
    paper's protocol.

    Args:
        cfg (Config): See :class:`OperationTest`.
        checkpoint (str): See :class:`OperationTest`.
        policies (dict): Name in the rows to a policy, see
            :func:`name_policies` and :class:`mmfeatjnd.models.Quantization`.
        mean_bits (Sequence[float]): Bits per element of the data set to aim
            at, by the entropy model and without side information. Defaults to
            ().
        noise_budgets (Sequence[float]): NRMSE of each image and level.
            Defaults to ().
        seeds (Sequence[int]): Seeds of the policies with a random part or an
            estimator; the others are measured once. Defaults to (0,).
        estimators (Sequence[str]): Estimator files, one for each seed.
            Defaults to (): the checkpoint's.
        calibration_images (int): How many images the scale is found on, drawn
            at random. Defaults to 64.
        calibration_split (str): Whose: 'train' or 'test'. Defaults to
            'train'.
        coded (bool): Write real bitstreams and count their bytes. Defaults to
            True.
        split (str, optional): See :class:`OperationTest`. Defaults to None.
        levels (Sequence[int], optional): See :class:`OperationTest`. Defaults
            to None.
        nats (bool): See :meth:`OperationTest.measure`. Defaults to False.
        draws (int): See :meth:`OperationTest.measure`. Defaults to 0.

    Returns:
        list[dict]: The rows, see :mod:`mmfeatjnd.evaluation.rate`. The first
        is the clean host.

    Raises:
        ValueError: Mean bits or noise budgets that are not positive and
            finite, an unknown policy, or not one estimator for each seed.

    Example:
        >>> rows = measure_rates(cfg, checkpoint, dict(one='one-step'),
        ...                      mean_bits=[1.0], calibration_split='test')
        Loads checkpoint ...
        Scales of the steps, on 8 images of test:
        clean: accuracy/top1 ...
        one mean bits 1 seed 0: accuracy/top1 ...
        >>> [row['policy'] for row in rows], rows[1]['mean_bits']
        (['clean', 'one'], 1.0)
        >>> 0.95 < rows[1]['bits_per_element'] < 1.05
        True
    """
    check_seeds(seeds, estimators)
    if not all(0 < b < math.inf for b in mean_bits):
        raise ValueError('mean_bits must be positive and finite, but got '
                         f'{mean_bits}')

    def create(name: str, seed: int, **kwargs) -> Quantization:
        return Quantization(policies[name], seed=seed, coded=coded, **kwargs)

    def runs(name: str, i: int) -> bool:
        # a further seed must not measure the same again
        policy = create(name, 0).policy
        return i == 0 or policy.random or (policy.needs_jnd
                                           and bool(estimators))

    # everything is built, and so checked, before the first pass
    cases = [(name, i, seed) for (i, seed), name in product(
        enumerate(seeds), policies) if runs(name, i)]
    probes = [create(name, seed) for name, _, seed in cases]
    at_noise = [(name, None, i, create(name, seed, noise_budget=budget))
                for (name, i, seed), budget in product(cases, noise_budgets)]
    test = OperationTest(cfg, checkpoint, estimators, split, levels)
    for (_, i, _), probe in zip(cases, probes):
        test.use(i)
        probe.check(test.neck)
    settings = []
    if mean_bits:
        loader = split_dataloader(
            test.runner, calibration_split, sample=calibration_images)
        if is_main_process():
            print(f'Scales of the steps, on {len(loader.dataset)} images of '
                  f'{calibration_split}:')
        calibration = _Calibration(test, loader, probes)
        for (name, i, seed), probe in zip(cases, probes):
            scales = calibration.scales(i, probe, mean_bits)
            for target, scale in zip(mean_bits, scales):
                if scale is None:
                    log(f'{name} cannot take {target:g} bits per element: '
                        'no such row', logging.WARNING)
                    continue
                settings.append((name, target, i,
                                 create(name, seed, scale=scale)))
        del calibration  # its features take memory
    settings += at_noise
    return test.measure(
        [(i, operation) for _, _, i, operation in settings],
        nats=nats,
        draws=draws,
        fields=[dict(policy='clean')] +
        [dict(policy=name, mean_bits=target)
         for name, target, _, _ in settings])
