"""The operation that distorts features at a requested NRMSE."""
from typing import Dict, Union

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    DEFINITIONS,
    Level,
    cast_to,
    nrmse,
    participation_ratio,
    scale_to_nrmse,
)
from mmfeatjnd.models.run import Visit
from .base_operation import BaseOperation
from .distortions import build_distortion


class Perturbation(BaseOperation):
    """Distort every configured level of every image at one NRMSE.

    Measures ``nrmse`` and ``participation_ratio``.

    Args:
        distortion (str | dict): A name in ``DISTORTIONS``, or a config with
            it as ``type``.
        nrmse (float): NRMSE of each image and level, > 0.
        definition (str): Denominator of the NRMSE: 'rms', 'std' or 'range'.
            Defaults to 'rms'.
        seed (int): Seed of the noise. Defaults to 0.
    """

    def __init__(self,
                 distortion: Union[str, dict],
                 nrmse: float,
                 definition: str = 'rms',
                 seed: int = 0) -> None:
        self.distortion = build_distortion(distortion)
        self.distortion_name = (
            distortion if isinstance(distortion, str) else distortion['type'])
        if not 0 < nrmse < float('inf'):
            raise ValueError(f'nrmse must be positive and finite, but got '
                             f'{nrmse}. Without a distortion, leave the hook '
                             'out.')
        if definition not in DEFINITIONS:
            raise ValueError(f'NRMSE definition must be one of {DEFINITIONS}, '
                             f'but got {definition!r}')
        self.nrmse = float(nrmse)
        self.definition = definition
        self.needs_jnd = self.distortion.needs_jnd
        self.needs_sensitivity = self.distortion.needs_sensitivity
        super().__init__(seed)

    @property
    def name(self) -> str:
        return f"distortion='{self.distortion_name}'"

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        jnd = None
        if self.needs_jnd:
            estimator = visit.neck.estimator_of(level)
            jnd = estimator.distortion(
                estimator(feature), visit.keys, visit.stream)
        delta = self.distortion(
            Level(
                feature,
                visit.keys,
                visit.stream,
                distortion=jnd,
                sensitivity=visit.sensitivity))
        delta = scale_to_nrmse(delta, feature, self.nrmse, self.definition)
        value = feature.float() + delta
        applied = delta
        if feature.dtype != torch.float32:
            # half precision rounds, and its range ends early
            applied = cast_to(value, feature.dtype).float() - feature.float()
        visit.measure(
            nrmse=nrmse(applied, feature, self.definition),
            participation_ratio=participation_ratio(delta))
        return value

    def row(self, summary: Dict[str, float]) -> dict:
        return dict(
            distortion=self.distortion_name,
            nrmse=self.nrmse,
            nrmse_measured=summary['nrmse'],
            participation_ratio=summary['participation_ratio'],
            seed=self.seed)
