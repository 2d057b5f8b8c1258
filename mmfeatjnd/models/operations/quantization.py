"""The operation that quantizes features."""
import logging
import math
from collections import Counter
from typing import Dict, List, Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmfeatjnd.functional import (
    Allocation,
    Level,
    bisect_scale,
    cast_to,
    meets_target,
    nrmse,
    saturated,
    scale_to_modelled_noise,
)
from mmfeatjnd.functional.symbols import MAX_SYMBOL
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.models.run import Run, Visit, check_faults
from mmfeatjnd.registry import STEP_POLICIES
from .base_operation import BaseOperation
from .level_coding import Coded, LevelCoding, level_bits, with_models

NOISES = ('measured', 'model')


class Quantization(BaseOperation):
    """Quantization of every configured level with the steps of a policy.

    How coarse: exactly one of ``scale``, ``noise_budget``, ``bits`` and
    ``tolerance``.
    Measures ``nrmse`` (mean over the levels), ``bits`` (code length of the
    entropy model, without side information), ``elements``, ``saturated``
    (share of the symbols at the end of their range), for a budget
    ``target_met`` (share of the levels that came to it) and, with ``coded``,
    ``coded_bytes`` (the whole stream of an image: header, steps, parameters
    and symbols) and ``pixels`` of the image as it was read. The padding of a
    map is not sent, but for two tokens around the picture: a receiver puts
    there what an input of padding alone gives.

    Args:
        policy (str | dict): A name in ``STEP_POLICIES``, or a config with it
            as ``type``. Defaults to 'featjnd'.
        scale (float, optional): Scale of the policy's steps, in its unit.
            Defaults to None: 1, if neither of the others is given.
        noise_budget (float, optional): NRMSE of each image and level, the
            paper's protocol.
        bits (float, optional): Bits per element of each image and level.
        tolerance (float, optional): Nats of an image, a mean over images, by
            the curve of a plan; for ``policy=dict(type='plan', ...)``.
        noise (str): The budget holds for the 'measured' error, by bisection,
            or for the 'model' mean(step^2) / 12, in closed form. Defaults to
            'measured'.
        rounding (float): See :class:`mmfeatjnd.functional.Allocation`; for
            the policies that have none of their own. Defaults to 0.5.
        deadzone (float): See :class:`mmfeatjnd.functional.Allocation`.
            Defaults to 0.5.
        seed (int): Seed of the policies with a random part. Defaults to 0.
        coded (bool): Write the real bitstream of every image and measure its
            length. It takes seconds for an image of COCO's size. Defaults to
            False.
    """

    totals = ('bits', 'elements', 'coded_bytes', 'pixels')
    leaves_out_padding = True
    # what is near the picture depends on it
    margin = 2

    def __init__(self,
                 policy: Union[str, dict] = 'featjnd',
                 scale: Optional[float] = None,
                 noise_budget: Optional[float] = None,
                 bits: Optional[float] = None,
                 tolerance: Optional[float] = None,
                 noise: str = 'measured',
                 rounding: float = 0.5,
                 deadzone: float = 0.5,
                 seed: int = 0,
                 coded: bool = False) -> None:
        cfg = dict(type=policy) if isinstance(policy, str) else dict(policy)
        STEP_POLICIES.import_from_location()
        if cfg.get('type') not in STEP_POLICIES.module_dict:
            raise ValueError(
                f'policy must be one of {sorted(STEP_POLICIES.module_dict)}, '
                f'or a dict with one of them as type, but got {policy!r}')
        given = dict(scale=scale, noise_budget=noise_budget, bits=bits,
                     tolerance=tolerance)
        given = {k: v for k, v in given.items() if v is not None}
        if len(given) > 1:
            raise ValueError('give one of scale, noise_budget, bits and '
                             f'tolerance, but got {given}')
        if not all(0 < v < float('inf') for v in given.values()):
            raise ValueError('scale, noise_budget, bits and tolerance must '
                             f'be positive and finite, but got {given}')
        if noise not in NOISES:
            raise ValueError(f'noise must be one of {NOISES}, but got '
                             f'{noise!r}')
        if not 0 <= rounding <= 0.5 or deadzone < 0.5:
            raise ValueError('rounding must lie in [0, 0.5] and deadzone be '
                             f'at least 0.5, but got {rounding} and '
                             f'{deadzone}')
        self.policy_name = cfg['type']
        # not looked for in the host's scope first; a plan in it is shared
        self.policy = STEP_POLICIES.build(dict(cfg, _scope_='mmfeatjnd'))
        if tolerance is not None:
            scale = self.policy.scale_for(tolerance)
        self.scale = 1.0 if not given else scale
        self.tolerance = tolerance
        self.noise_budget = noise_budget
        self.bits = bits
        self.noise = noise
        self.rounding = rounding
        self.deadzone = deadzone
        self.coded = coded
        self.needs_jnd = self.policy.needs_jnd
        self.needs_sensitivity = self.policy.needs_sensitivity
        self.needs_uncertainty = self.policy.needs_uncertainty
        super().__init__(seed)

    @property
    def name(self) -> str:
        return f"policy='{self.policy_name}'"

    def check(self, neck) -> None:
        super().check(neck)
        self.policy.check(neck)
        modes = {e.mode for e in neck.active_estimators()}
        if self.needs_jnd and not modes <= set(self.policy.modes):
            raise CheckpointError(
                f'{self.name} takes its steps from an estimator of mode '
                f'{" or ".join(map(repr, self.policy.modes))}, but this one '
                f'has mode={modes.pop()!r}: a signed map says which direction '
                'is harmless, not how much noise is. Train one with a config '
                'of configs/featjnd.')

    def coding(self, feature: Tensor, visit: Visit,
               level: int) -> LevelCoding:
        """How one level is quantized, as a function of the scale."""
        code = self.policy.code(level, feature.device)
        envelope = estimator = None
        if self.needs_jnd:
            estimator = visit.neck.estimator_of(level)
            if code is None:  # components have no envelope
                envelope = estimator(feature)
        whole = Level(
            feature,
            visit.keys,
            visit.stream,
            envelope=envelope,
            sensitivity=visit.sensitivity,
            estimator=estimator,
            uncertainty=visit.uncertainty)

        def part(value: Tensor, model=None, exponent=None) -> Coded:
            allocate = self.policy(whole._replace(feature=value))

            def at(scale: Tensor) -> Allocation:
                allocation = allocate(scale)
                if exponent is not None:
                    allocation = allocation._replace(
                        steps=allocation.steps._replace(token=exponent))
                if allocation.rounding is None:
                    allocation = allocation._replace(rounding=self.rounding)
                return allocation._replace(deadzone=self.deadzone)

            return Coded(value, at, model)

        if code is None:
            return LevelCoding(feature, [part(feature)], lambda x: x[0],
                               self.policy.limits)
        parts = map(part, code.components(feature), code.models,
                    self.policy.exponents(whole, code))
        return LevelCoding(feature, list(parts),
                           lambda x: code.feature(x, feature),
                           self.policy.limits)

    def _solve(self, coding: LevelCoding) -> Tensor:
        """The scale of each image, (B,)."""
        feature = coding.feature
        one = feature.new_ones(len(feature), dtype=torch.float32)
        if self.scale is not None:
            return one * self.scale
        finest, coarsest = coding.limits()
        if self.noise == 'model' and self.bits is None:
            steps = coding.parts[0].at(one).steps
            wanted = scale_to_modelled_noise(steps, feature,
                                             self.noise_budget)
            return torch.maximum(wanted.base / steps.base, finest)

        def noise(scale):
            _, value = coding.quantize(scale)
            return nrmse(value - feature.float(), feature)

        def bits_per_element(scale):
            quantized, _ = coding.quantize(scale)
            return level_bits(quantized) / feature[0].numel()

        by_bits = self.bits is not None
        return bisect_scale(
            bits_per_element if by_bits else noise,
            one * (self.bits if by_bits else self.noise_budget),
            increasing=not by_bits,
            finest=finest,
            coarsest=coarsest)

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        coding = self.coding(feature, visit, level)
        quantized, value = coding.quantize(self._solve(coding))
        # fitted once, for the code length and for the coder
        quantized = with_models(quantized)
        value = cast_to(value, feature.dtype)
        noise = nrmse(value.float() - feature.float(), feature)
        bits = level_bits(quantized)
        elements = feature[0].numel()
        visit.measure(
            nrmse=noise,
            bits=bits,
            elements=torch.full_like(visit.keys, elements),
            saturated=torch.stack(
                [saturated(x.symbols) for x in quantized]).mean(0))
        if self.bits is not None:
            visit.measure(target_met=meets_target(bits / elements, self.bits))
        elif self.noise_budget is not None and self.noise == 'measured':
            visit.measure(target_met=meets_target(noise, self.noise_budget))
        visit.run.kept += [(visit.images, x) for x in quantized]
        return value

    def finish(self, run: Run) -> None:
        """Write the bitstreams of the images, if they are asked for."""
        if not self.coded or not run.kept:  # a picture without regions
            return
        check_faults([run])  # before the coder stumbles over a NaN
        device = run.kept[0][0].device
        sizes = [len(x) for x in self.streams(run)]
        pixels = [math.prod(run.size_of(i)) for i in range(len(sizes))]
        run.add(
            torch.arange(len(sizes), device=device),
            coded_bytes=torch.tensor(sizes, device=device),
            pixels=torch.tensor(pixels, device=device))

    def streams(self, run: Run) -> List[bytes]:
        """Bitstreams of the images of a batch.

        Args:
            run (Run): A run of this operation, over.

        Returns:
            list[bytes]: Of each image its stream; of several views of it the
            streams one after the other; of none of it no bytes.
        """
        views: List[Dict[int, list]] = [{} for _ in range(run.batch_size)]
        for images, quantized in run.kept:
            quantized = quantized.cpu()
            seen: Dict[int, int] = Counter()
            for row, image in enumerate(images.tolist()):
                levels = views[image].setdefault(seen[image], [])
                levels.append(quantized.of_image(row))
                seen[image] += 1
        return [
            b''.join(self.policy.stream(levels, run.size_of(i))
                     for levels in image.values())
            for i, image in enumerate(views)
        ]

    def summary(self, columns: Dict[str, Tensor]) -> Dict[str, float]:
        """``nrmse`` and ``coded_bytes``, means over the images, and
        ``bits_per_element``, ``coded_bits_per_element`` and
        ``bits_per_pixel``: the bits of all images over their elements, or
        pixels."""
        elements = columns['elements'].sum()
        result = dict(
            nrmse=float(columns['nrmse'].nanmean()),
            bits_per_element=float(columns['bits'].sum() / elements))
        self._warn(columns)
        if 'coded_bytes' in columns:
            coded = columns['coded_bytes']
            result['coded_bytes'] = float(coded.mean())
            result['coded_bits_per_element'] = float(8 * coded.sum() /
                                                     elements)
            result['bits_per_pixel'] = float(
                8 * coded.sum() / columns['pixels'].sum())
        return result

    def _warn(self, columns: Dict[str, Tensor]) -> None:
        """Say what was asked and not to be had."""
        lost = float(columns['saturated'].nanmean())
        if lost > 0:
            print_log(
                f'{self.name}: {lost:.2%} of the symbols are saturated at '
                f'+-{MAX_SYMBOL}: the steps are too fine for the largest '
                'values, whose error grows. Use a larger scale.',
                logger='current',
                level=logging.WARNING)
        missed = 1 - float(columns['target_met'].nanmean()) \
            if 'target_met' in columns else 0.0
        if missed > 0:
            what = dict(bits=self.bits, noise_budget=self.noise_budget)
            asked = ', '.join(f'{k}={v:g}' for k, v in what.items() if v)
            print_log(
                f'{self.name}: {missed:.0%} of images and levels do not come '
                f'within 5 % of {asked}; what they came to was measured.',
                logger='current',
                level=logging.WARNING)

    def row(self, summary: Dict[str, float]) -> dict:
        summary = dict(summary)
        return dict(
            policy=self.policy_name,
            protocol='rate' if self.noise_budget is None else 'equal-noise',
            noise_budget=self.noise_budget,
            scale=self.scale,
            bits=self.bits,
            nrmse_measured=summary.pop('nrmse'),
            # all bits over all elements, not the mean of the images' ratios
            bits_of='data set',
            seed=self.seed,
            **summary)
