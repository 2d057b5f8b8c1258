"""The distortions that are compared at equal NRMSE.

A distortion looks at one level of features and returns an unscaled change of
the same shape; the NRMSE is set for it. Register your own with
``@DISTORTIONS.register_module(name=...)``.
"""
from abc import ABC, abstractmethod
from typing import Optional, Union

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    Level,
    gaussian_noise,
    hidden_part,
    over_tokens,
    sensitivity_log_scale,
    uniform_noise,
)
from mmfeatjnd.functional.sensitivity import ROOT_3
from mmfeatjnd.models.estimators.base_estimator import MODES
from mmfeatjnd.registry import DISTORTIONS


class Distortion(ABC):
    """An unscaled change of one level.

    Attributes:
        needs_jnd (bool): ``level.estimator`` must be trained.
        needs_sensitivity (bool): ``level.sensitivity`` must be given.
        needs_detections (bool): ``level.detected`` must be given.
        metric (str, optional): Which metric ``level.metric`` must be of:
            'task', of a file of ``tools/estimate_metric.py``, or 'readers',
            of the weights of the layers that read the split.
        random (bool): Its result depends on the seed, beyond what the
            estimator draws.
    """

    needs_jnd = False
    needs_sensitivity = False
    needs_detections = False
    metric: Optional[str] = None
    random = True
    #: Modes of the estimators whose maps it understands.
    modes = MODES

    @abstractmethod
    def __call__(self, level: Level) -> Tensor:
        """The change, float32, the shape of the feature."""

    def std(self, level: Level) -> Optional[Tensor]:
        """Standard deviation of independent noise at every element,
        broadcastable to the feature, of which the change is :meth:`white`
        times; None for a change that is none, which has no volume."""
        return None

    def white(self, level: Level) -> Tensor:
        """White noise of unit variance, the shape of the feature."""
        return gaussian_noise(level.keys, level.feature.shape[1:],
                              level.stream)


def build_distortion(cfg: Union[str, dict]) -> Distortion:
    """Build a distortion.

    Args:
        cfg (str | dict): A name in ``DISTORTIONS``, or a config with it as
            ``type``.

    Raises:
        ValueError: There is no such distortion.
    """
    cfg = dict(type=cfg) if isinstance(cfg, str) else dict(cfg)
    names = distortion_names()
    if cfg.get('type') not in names:
        raise ValueError(f'distortion must be one of {names}, or a dict with '
                         f'one of them as type, but got {cfg.get("type")!r}')
    # not looked for in the host's scope first
    return DISTORTIONS.build(dict(cfg, _scope_='mmfeatjnd'))


def distortion_names() -> list:
    """The names of all registered distortions, sorted."""
    DISTORTIONS.import_from_location()
    return sorted(DISTORTIONS.module_dict)


@DISTORTIONS.register_module(name='gaussian')
class Gaussian(Distortion):
    """White Gaussian noise, the paper's baseline."""

    def std(self, level: Level) -> Tensor:
        if level.unit is None:
            return level.feature.new_ones((), dtype=torch.float32)
        return level.unit

    def __call__(self, level: Level) -> Tensor:
        return self.std(level) * self.white(level)


@DISTORTIONS.register_module(name='uniform-noise')
class UniformNoise(Gaussian):
    """White uniform noise."""

    def white(self, level: Level) -> Tensor:
        return ROOT_3 * uniform_noise(level.keys, level.feature.shape[1:],
                                      level.stream)


@DISTORTIONS.register_module(name='shrinkage')
class Shrinkage(Distortion):
    """f -> (1 - a) f: is FeatJND more than a smaller feature?"""

    random = False

    def __call__(self, level: Level) -> Tensor:
        return -level.feature.float()


@DISTORTIONS.register_module(name='amplification')
class Amplification(Distortion):
    """f -> (1 + a) f: is FeatJND more than a larger feature?"""

    random = False

    def __call__(self, level: Level) -> Tensor:
        return level.feature.float().clone()


@DISTORTIONS.register_module(name='gradient-sensitivity')
class GradientSensitivity(Gaussian):
    """Gaussian noise, weaker in the elements where the task's Fisher
    information on this very image is large; see
    :func:`mmfeatjnd.functional.sensitivity_log_scale`. Ours."""

    needs_sensitivity = True

    def std(self, level: Level) -> Tensor:
        # in the feature's own unit
        return sensitivity_log_scale(level.sensitivity).exp()


@DISTORTIONS.register_module(name='closed-form')
class ClosedForm(Distortion):
    """Gaussian noise of the inverse task metric as its covariance: the
    largest that costs so many nats. Ours."""

    metric = 'task'

    def __call__(self, level: Level) -> Tensor:
        return over_tokens(self.white(level), level.metric.root)


@DISTORTIONS.register_module(name='lateral')
class Lateral(ClosedForm):
    """The same with W^T W of the layers that read the split (the laterals of
    an FPN) as the metric: does it take more than their weights?"""

    metric = 'readers'


@DISTORTIONS.register_module(name='null-space')
class NullSpace(Distortion):
    """Gaussian noise where the task metric is 0: it costs nothing, however
    strong it is, and says nothing of the task."""

    metric = 'task'

    def __call__(self, level: Level) -> Tensor:
        noise = self.white(level)
        hidden = hidden_part(noise, level.metric.basis)
        # all is seen: what is left is rounding
        some = level.metric.basis.size(1) < level.metric.basis.size(0)
        return hidden if some else torch.zeros_like(hidden)
