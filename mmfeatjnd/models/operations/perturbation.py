"""The operation that distorts features at a requested strength."""
from typing import Dict

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    DEFINITIONS,
    DISTORTIONS,
    NEEDS_JND,
    NEEDS_SENSITIVITY,
    Level,
    nrmse,
    participation_ratio,
    saturate,
    scale_to_nrmse,
)
from mmfeatjnd.models.run import Visit
from .base_operation import BaseOperation


class Perturbation(BaseOperation):
    """Distort every configured level of every image at one NRMSE.

    Measures ``nrmse`` and ``participation_ratio``.

    Args:
        distortion (str): A key of :data:`DISTORTIONS`.
        strength (float): The NRMSE of each image and level, > 0.
        definition (str): Of the NRMSE: 'rms', 'std' or 'range'. Defaults to
            'rms'.
        seed (int): Seed of the noise. Defaults to 0.
    """

    def __init__(self,
                 distortion: str,
                 strength: float,
                 definition: str = 'rms',
                 seed: int = 0) -> None:
        if distortion not in DISTORTIONS:
            raise ValueError(f'distortion must be one of '
                             f'{sorted(DISTORTIONS)}, but got {distortion!r}')
        if not 0 < strength < float('inf'):
            raise ValueError('the strength (NRMSE) must be positive and '
                             f'finite, but got {strength}. Without a '
                             'distortion, leave the hook out.')
        if definition not in DEFINITIONS:
            raise ValueError(f'NRMSE definition must be one of {DEFINITIONS}, '
                             f'but got {definition!r}')
        self.distortion = distortion
        self.strength = float(strength)
        self.definition = definition
        self.needs_jnd = distortion in NEEDS_JND
        self.needs_sensitivity = distortion in NEEDS_SENSITIVITY
        self._fn = DISTORTIONS[distortion]
        super().__init__(seed)

    @property
    def name(self) -> str:
        return f"distortion='{self.distortion}'"

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        jnd = None
        if self.needs_jnd:
            estimator = visit.neck.estimator_of(level)
            jnd = estimator.distortion(
                estimator(feature), visit.keys, visit.stream)
        delta = self._fn(
            Level(feature, visit.keys, visit.stream, jnd, visit.sensitivity))
        delta = scale_to_nrmse(delta, feature, self.strength, self.definition)
        value = feature.float() + delta
        applied = delta
        if feature.dtype != torch.float32:
            # half precision rounds, and its range ends early
            applied = saturate(value, feature.dtype).float() - feature.float()
        visit.measure(
            nrmse=nrmse(applied, feature, self.definition),
            participation_ratio=participation_ratio(delta))
        return value

    def row(self, summary: Dict[str, float]) -> dict:
        return dict(
            distortion=self.distortion,
            nrmse=self.strength,
            nrmse_measured=summary['nrmse'],
            participation_ratio=summary['participation_ratio'],
            seed=self.seed)
