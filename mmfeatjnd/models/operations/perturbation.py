"""The operation that distorts features at a requested strength."""
from functools import partial
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    DEFINITIONS,
    Level,
    bisect_scale,
    cast_to,
    inverse_root,
    nrmse,
    over_channels,
    participation_ratio,
    scale_to_nrmse,
    visible_basis,
    visible_part,
    volume_bits,
)
from mmfeatjnd.functional.layout import per_image
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.models.metric_file import TaskMetric, load_metric
from mmfeatjnd.models.run import Run, Visit
from mmfeatjnd.utils import ConfigError
from .base_operation import BaseOperation
from .distortions import build_distortion

#: What a strength can be measured in.
STRENGTHS = (*DEFINITIONS, 'visible', 'channel')


class _Look(NamedTuple):
    """A level of some images, and the unscaled change that waits for it."""
    visit: Visit
    feature: Tensor
    delta: Tensor
    std: Optional[Tensor]  # of the change, where it is independent noise
    unit: Tensor  # of each channel, 0 where it never changed
    limits: Optional[Tuple[Tensor, Tensor]]


class _Metric(NamedTuple):
    """What distortions and definitions need of the metric of a level."""
    basis: Tensor  # (C, r)
    root: Tensor  # (C, C)

    @classmethod
    def of(cls, matrix: Tensor, tolerance: float) -> '_Metric':
        return cls(visible_basis(matrix, tolerance),
                   inverse_root(matrix, tolerance))


class Perturbation(BaseOperation):
    """Distort every configured level of every image at one strength.

    Measures ``nrmse`` and ``participation_ratio``; of independent noise with
    ``definition='channel'`` also ``volume_bits``, see
    :func:`mmfeatjnd.functional.volume_bits`.

    Args:
        distortion (str | dict): A name in ``DISTORTIONS``, or a config with
            it as ``type``.
        nrmse (float): Strength of the distortion, > 0, of each image.
        definition (str): Its unit. 'rms', 'std' and 'range': NRMSE of each
            level, with this denominator. 'visible': as 'rms', of what the
            rest of the host sees of distortion and feature. 'channel': RMS
            over all levels in units of the channels' standard deviation over
            the training pictures, which the estimator knows; so a distortion
            may spend it where it wants. Defaults to 'rms'.
        valid (bool): Keep the distorted features in the range that the
            estimator has seen at the split, such as >= 0 behind a ReLU; the
            strength is matched after that. Defaults to False.
        seed (int): Seed of the noise. Defaults to 0.
        task_metric (str | TaskMetric, optional): What 'visible',
            'null-space' and 'closed-form' need: the task metric of the split,
            or its file, see ``tools/estimate_metric.py``. Defaults to None.
        tolerance (float): Least eigenvalue of a metric that counts as seen,
            as a share of the largest. Defaults to 1e-3.
    """

    def __init__(self,
                 distortion: Union[str, dict],
                 nrmse: float,
                 definition: str = 'rms',
                 valid: bool = False,
                 seed: int = 0,
                 task_metric: Union[None, str, TaskMetric] = None,
                 tolerance: float = 1e-3) -> None:
        self.distortion = build_distortion(distortion)
        self.distortion_name = (
            distortion if isinstance(distortion, str) else distortion['type'])
        if not 0 < nrmse < float('inf'):
            raise ValueError(f'nrmse must be positive and finite, but got '
                             f'{nrmse}. Without a distortion, leave the hook '
                             'out.')
        if definition not in STRENGTHS:
            raise ValueError('NRMSE definition must be one of '
                             f'{STRENGTHS}, but got {definition!r}')
        if definition == 'visible' and self.distortion_name == 'null-space':
            raise ValueError("definition='visible': nothing is seen of noise "
                             "in the null space. Use 'rms' or 'channel'.")
        self.needs_task_metric = (
            definition == 'visible' or self.distortion.metric == 'task')
        if self.needs_task_metric and task_metric is None:
            raise ValueError(
                f'{self.name} with definition={definition!r} needs '
                'task_metric: a file of tools/estimate_metric.py for this '
                'host and split.')
        self.task_metric = task_metric
        self.tolerance = tolerance
        self._metrics: Dict[str, Dict[int, _Metric]] = {}
        self.nrmse = float(nrmse)
        self.definition = definition
        self.valid = valid
        self.needs_jnd = (
            self.distortion.needs_jnd or valid or definition == 'channel')
        self.needs_sensitivity = self.distortion.needs_sensitivity
        self.needs_detections = self.distortion.needs_detections
        super().__init__(seed)

    @property
    def name(self) -> str:
        return f"distortion='{self.distortion_name}'"

    def check(self, neck) -> None:
        """See :meth:`BaseOperation.check`; and raise where the estimators
        have not counted what the distortion needs."""
        super().check(neck)
        self._know_metrics(neck)
        modes = {e.mode for e in neck.active_estimators()}
        if self.distortion.needs_jnd and not modes <= set(
                self.distortion.modes):
            raise CheckpointError(
                f'{self.name} needs an estimator of mode '
                f'{" or ".join(map(repr, self.distortion.modes))}, but this '
                f'one has mode={modes.pop()!r}. Train one with a config of '
                'configs/featjnd.')

    def _know_metrics(self, neck) -> None:
        if self.needs_readers:
            raise ConfigError(
                f'{self.name} needs the metric of the layers that read the '
                'split: call know_readers with that of mmfeatjnd.models.'
                'reader_metrics.')
        if self.needs_task_metric and 'task' not in self._metrics:
            found = self.task_metric
            if not isinstance(found, TaskMetric):
                found = load_metric(found, neck.host, neck.split,
                                    neck.active_levels)
            self._metrics['task'] = {
                i: _Metric.of(level.metric, self.tolerance)
                for i, level in found.levels.items()
            }

    def know_readers(self, metrics: Dict[int, Tensor]) -> None:
        """Take the metrics of the layers that read the split, which 'lateral'
        needs; see :func:`mmfeatjnd.models.reader_metrics`."""
        self._metrics['readers'] = {
            i: _Metric.of(m, self.tolerance) for i, m in metrics.items()
        }

    @property
    def needs_readers(self) -> bool:
        """bool: Whether :meth:`know_readers` must be called, and was not."""
        return (self.distortion.metric == 'readers'
                and 'readers' not in self._metrics)

    # --------------------------------------------------------------- changing
    def _metric(self, kind: str, level: int, feature: Tensor,
                visit: Visit) -> '_Metric':
        if kind not in self._metrics:  # nobody has prepared the batch
            self._know_metrics(visit.neck)
        known = self._metrics[kind]
        if known[level].root.device != feature.device:
            known[level] = _Metric(*(x.to(feature.device)
                                     for x in known[level]))
        return known[level]

    def _unscaled(self, feature: Tensor, level: int, visit: Visit) -> _Look:
        estimator = unit = limits = None
        if self.needs_jnd:
            estimator = visit.neck.estimator_of(level)
            unit = over_channels(estimator.channels.std, feature)
        if self.valid:
            limits = estimator.channels.low, estimator.channels.high
        seen = Level(
            feature,
            visit.keys,
            visit.stream,
            sensitivity=visit.sensitivity,
            unit=unit if self.definition == 'channel' else None,
            estimator=estimator,
            detected=visit.detected,
            metric=self._metric(self.distortion.metric, level, feature, visit)
            if self.distortion.metric else None)
        std = self.distortion.std(seen)
        delta = self.distortion(
            seen) if std is None else std * self.distortion.white(seen)
        return _Look(visit, feature, delta, std, unit, limits)

    @property
    def look(self):
        """Callable, optional: Sees every level before the first is changed,
        where one strength is for all."""
        return self._look if self.definition == 'channel' else None

    def _look(self, feature: Tensor, level: int, visit: Visit) -> None:
        visit.run.looked.append(self._unscaled(feature, level, visit))

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        if self.definition == 'channel':
            return self._change_jointly(feature, visit)
        seen = self._unscaled(feature, level, visit)
        strength = partial(nrmse, feature=feature, definition=self.definition)
        if self.definition == 'visible':
            basis = self._metric('task', level, feature, visit).basis
            shown = visible_part(feature.float(), basis)

            def strength(delta: Tensor) -> Tensor:
                return nrmse(visible_part(delta, basis), shown)

            now = strength(seen.delta)
            delta = seen.delta * per_image(
                self.nrmse / torch.where(now > 0, now, 1.0), feature)
        else:
            delta = scale_to_nrmse(seen.delta, feature, self.nrmse,
                                   self.definition)
        if self.valid:

            def measure(scale: Tensor) -> Tensor:
                return strength(
                    _applied(seen, delta * per_image(scale, delta)))

            more = bisect_scale(
                measure,
                torch.full_like(visit.keys, self.nrmse, dtype=torch.float32),
                finest=1.0)
            delta = _applied(seen, delta * per_image(more, delta))
        value, applied = _rounded(feature, delta)
        visit.measure(
            nrmse=strength(applied),
            participation_ratio=participation_ratio(delta))
        return value

    def _change_jointly(self, feature: Tensor, visit: Visit) -> Tensor:
        run = visit.run
        if not run.looked:
            raise ConfigError(
                f"FeatJNDNeck: the levels of split='{visit.neck.split}' "
                "arrive one after the other, so definition='channel' cannot "
                'share out one strength among them. Use a split that emits '
                "them together, such as 'backbone', or levels=(i,) of one.")
        if isinstance(run.looked[0], _Look):  # the first level of a pass
            run.looked = [self._joint_scale(run), *run.looked]
        scale, seen, *rest = run.looked
        run.looked = [scale, *rest] if rest else []
        own = per_image(scale[visit.images], feature)
        delta = seen.delta * own
        if self.valid:
            delta = _applied(seen, delta)
        value, applied = _rounded(feature, delta)
        alive = seen.unit > 0
        relative = applied / torch.where(alive, seen.unit, 1.0) * alive
        elements = torch.full_like(visit.keys, relative[0].numel())
        if self.has_volume and seen.std is not None:
            visit.measure(
                volume=elements * volume_bits(
                    (own * seen.std).square().expand_as(feature),
                    seen.unit.square()))
        visit.measure(
            square=relative.square().flatten(1).sum(1),
            elements=elements,
            participation_ratio=participation_ratio(delta))
        return value

    def _joint_scale(self, run: Run) -> Tensor:
        """The scale of each image, (B,), by which its levels together have
        the strength."""
        looked: List[_Look] = run.looked

        def measure(scale: Tensor, limited: bool) -> Tensor:
            total, number = (torch.zeros_like(scale) for _ in range(2))
            for seen in looked:
                images = seen.visit.images
                delta = seen.delta * per_image(scale[images], seen.delta)
                if limited:
                    delta = _applied(seen, delta)
                alive = seen.unit > 0
                relative = delta / torch.where(alive, seen.unit, 1.0) * alive
                total.index_add_(0, images,
                                 relative.square().flatten(1).sum(1))
                number.index_add_(
                    0, images,
                    torch.full_like(images, delta[0].numel(),
                                    dtype=total.dtype))
            return (total / number.clamp_min(1)).sqrt()

        ones = looked[0].delta.new_ones(run.batch_size)
        now = measure(ones, False)
        scale = self.nrmse / torch.where(now > 0, now, 1.0)
        if self.valid:
            scale = scale * bisect_scale(
                lambda more: measure(scale * more, True),
                self.nrmse * ones,
                finest=1.0)
        return scale

    # -------------------------------------------------------------- reporting
    @property
    def totals(self) -> Tuple[str, ...]:
        return ('square', 'elements',
                'volume') if self.definition == 'channel' else ()

    @property
    def has_volume(self) -> bool:
        """bool: Whether the volume of independent noise is measured: what is
        clamped is neither independent nor of a known variance."""
        return self.definition == 'channel' and not self.valid

    def summary(self, columns: Dict[str, Tensor]) -> Dict[str, float]:
        """``nrmse``, ``participation_ratio`` and, where there is one,
        ``volume_bits``, means over the images."""
        columns = dict(columns)
        if 'square' in columns:
            elements = columns.pop('elements')
            columns['nrmse'] = (columns.pop('square') / elements).sqrt()
            if 'volume' in columns:
                columns['volume_bits'] = columns.pop('volume') / elements
        return super().summary(columns)

    def row(self, summary: Dict[str, float]) -> dict:
        volume = {k: v for k, v in summary.items() if k == 'volume_bits'}
        return dict(
            distortion=self.distortion_name,
            definition=self.definition,
            valid=self.valid,
            nrmse=self.nrmse,
            nrmse_measured=summary['nrmse'],
            **volume,
            participation_ratio=summary['participation_ratio'],
            seed=self.seed)


def _applied(seen: _Look, delta: Tensor) -> Tensor:
    """What is left of a change within the range of the split."""
    low, high = seen.limits
    feature = seen.feature.float()
    # a feature beyond what training has seen may stay where it is
    bounded = torch.minimum(
        torch.maximum(feature + delta, torch.minimum(feature, low)),
        torch.maximum(feature, high))
    return bounded - feature


def _rounded(feature: Tensor, delta: Tensor) -> Tuple[Tensor, Tensor]:
    """The changed feature, and the change that the host will get: half
    precision rounds, and its range ends early."""
    value = feature.float() + delta
    if feature.dtype == torch.float32:
        return value, delta
    return value, cast_to(value, feature.dtype).float() - feature.float()
