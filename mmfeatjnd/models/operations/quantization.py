"""The operation that quantizes features."""
import copy
from typing import Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    Level,
    Steps,
    bisect_scale,
    code_length,
    dequantize,
    nrmse,
    quantize,
    quantize_fused,
    saturate,
    scale_to_modelled_noise,
)
from mmfeatjnd.registry import STEP_POLICIES
from .base_operation import BaseOperation
from .step_policies import Allocation

NOISES = ('measured', 'model')


class Quantization(BaseOperation):
    """Quantize every configured level with the steps of a policy.

    How coarse: exactly one of ``scale``, ``noise_budget`` and ``bits``.
    Measures ``nrmse`` (mean over the levels), ``bits_per_element`` (code
    length of the entropy model, without side information) and, with
    ``coded``, ``coded_bytes`` (the whole stream of an image: header, steps,
    parameters and levels).

    Args:
        policy (str | dict): A name in ``STEP_POLICIES``, or a config with it
            as ``type``. Defaults to 'featjnd'.
        scale (float, optional): Of the policy's steps, in its unit. Defaults
            to None: 1, if neither of the others is given.
        noise_budget (float, optional): NRMSE of each image and level, the
            paper's protocol.
        bits (float, optional): Bits per element of each image and level.
        noise (str): The budget holds for the 'measured' error, by bisection,
            or for the 'model' mean(step^2) / 12, in closed form. Defaults to
            'measured'.
        rounding (float): See :func:`mmfeatjnd.functional.quantize`; for the
            policies that have none of their own. Defaults to 0.5.
        deadzone (float): See :func:`mmfeatjnd.functional.quantize`. Defaults
            to 0.5.
        seed (int): Seed of the policies with a random part. Defaults to 0.
        coded (bool): Write the real bitstream of every image and measure its
            length. Defaults to True.
    """

    def __init__(self,
                 policy: Union[str, dict] = 'featjnd',
                 scale: Optional[float] = None,
                 noise_budget: Optional[float] = None,
                 bits: Optional[float] = None,
                 noise: str = 'measured',
                 rounding: float = 0.5,
                 deadzone: float = 0.5,
                 seed: int = 0,
                 coded: bool = True) -> None:
        cfg = dict(type=policy) if isinstance(policy, str) else dict(policy)
        STEP_POLICIES.import_from_location()
        if cfg.get('type') not in STEP_POLICIES.module_dict:
            raise ValueError(
                f'policy must be one of {sorted(STEP_POLICIES.module_dict)}, '
                f'or a dict with one of them as type, but got {policy!r}')
        given = dict(scale=scale, noise_budget=noise_budget, bits=bits)
        given = {k: v for k, v in given.items() if v is not None}
        if len(given) > 1:
            raise ValueError('give one of scale, noise_budget and bits, but '
                             f'got {given}')
        if not all(0 < v < float('inf') for v in given.values()):
            raise ValueError('scale, noise_budget and bits must be positive '
                             f'and finite, but got {given}')
        if noise not in NOISES:
            raise ValueError(f'noise must be one of {NOISES}, but got '
                             f'{noise!r}')
        if not 0 <= rounding <= 0.5 or deadzone < 0.5:
            raise ValueError('rounding must lie in [0, 0.5] and deadzone be '
                             f'at least 0.5, but got {rounding} and '
                             f'{deadzone}')
        self.policy_name = cfg['type']
        # not looked for in the host's scope first
        self.policy = STEP_POLICIES.build(
            dict(copy.deepcopy(cfg), _scope_='mmfeatjnd'))
        self.scale = 1.0 if not given else scale
        self.noise_budget = noise_budget
        self.bits = bits
        self.noise = noise
        self.rounding = rounding
        self.deadzone = deadzone
        self.coded = coded
        self.needs_jnd = self.policy.needs_jnd
        self.needs_sensitivity = self.policy.needs_sensitivity
        super().__init__(seed)

    @property
    def name(self) -> str:
        return f"policy='{self.policy_name}'"

    def check(self, neck) -> None:
        super().check(neck)
        modes = {e.mode for e in neck.estimators}
        if self.needs_jnd and modes != {'envelope'}:
            raise RuntimeError(
                f'{self.name} takes its steps from an envelope, but the '
                f'estimator has mode={modes.pop()!r}: a signed map says which '
                'direction is harmless, not how much noise is. Train one with '
                'a config of configs/quantization.')

    def start(self, *args, **kwargs) -> None:
        super().start(*args, **kwargs)
        #: What :meth:`__call__` quantized: (level, steps, dtype).
        self.quantized: List[Tuple[Tensor, Steps, torch.dtype]] = []

    def allocate(self, feature: Tensor, level: int, neck):
        """The policy's steps for one level, as a function of the scale."""
        keys, sensitivity = self._begin(feature, level, neck)
        envelope = None
        if self.needs_jnd:
            envelope = neck.estimator_of(level)(feature)
        return self.policy(Level(feature, keys, level, envelope, sensitivity))

    def apply(self, feature: Tensor,
              allocation: Allocation) -> Tuple[Tensor, Tensor]:
        """Levels and dequantized values of one level of features."""
        steps, rounding, bounds = allocation
        x = feature.float()
        if bounds is not None:
            bounds = bounds.view(-1, 2, *[1] * (x.dim() - 1))
            x = x.clamp(bounds[:, 0], bounds[:, 1])
        step = steps.size(x)
        if rounding is None:
            rounding = self.rounding
        if steps.offset is None:
            return quantize_fused(x, step, rounding, self.deadzone)
        offset = steps.origin(x)
        level = quantize(x, step, rounding, self.deadzone, offset)
        return level, dequantize(level, step, offset=offset)

    def _solve(self, feature: Tensor, at) -> Tensor:
        """The scale of each image, (B,)."""
        batch = len(feature)
        one = feature.new_ones(batch, dtype=torch.float32)
        if self.scale is not None:
            return one * self.scale

        def noise(scale):
            value = self.apply(feature, at(scale))[1]
            return nrmse(value - feature.float(), feature)

        def rate(scale):
            allocation = at(scale)
            level = self.apply(feature, allocation)[0]
            return code_length(level, allocation.steps) / level[0].numel()

        if self.bits is not None:
            return bisect_scale(
                rate,
                one * self.bits,
                increasing=False,
                finest=self.policy.finest)
        if self.noise == 'model':
            steps = at(one).steps
            return scale_to_modelled_noise(steps, feature,
                                           self.noise_budget).base / steps.base
        return bisect_scale(
            noise, one * self.noise_budget, finest=self.policy.finest)

    def __call__(self, feature: Tensor, level: int, neck) -> Tensor:
        at = self.allocate(feature, level, neck)
        allocation = at(self._solve(feature, at))
        levels, value = self.apply(feature, allocation)
        self.quantized.append((levels, allocation.steps, feature.dtype))
        value = saturate(value, feature.dtype)
        self._measured['nrmse'].append(
            nrmse(value.float() - feature.float(), feature))
        return value

    def measured(self) -> Dict[str, Tensor]:
        """``nrmse``, ``bits_per_element`` and ``coded_bytes``, (B,) each."""
        bits = sum(code_length(q, s) for q, s, _ in self.quantized)
        elements = sum(q[0].numel() for q, _, _ in self.quantized)
        result = dict(super().measured(), bits_per_element=bits / elements)
        if self.coded:
            from mmfeatjnd.coding import encode_batch
            result['coded_bytes'] = torch.tensor(
                [len(x) for x in encode_batch(self.quantized)],
                dtype=torch.float32,
                device=bits.device)
            result['coded_bits_per_element'] = \
                result['coded_bytes'] * 8 / elements
        return result

    def row(self, mean: Dict[str, float]) -> dict:
        mean = dict(mean)
        return dict(
            policy=self.policy_name,
            protocol='rate' if self.noise_budget is None else 'equal-noise',
            noise_budget=self.noise_budget,
            scale=self.scale,
            bits=self.bits,
            nrmse_measured=mean.pop('nrmse'),
            seed=self.seed,
            **mean)
