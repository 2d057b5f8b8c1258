"""Estimate the task metric of a split, in one pass over training pictures."""
import logging
import math
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.utils import ProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from mmfeatjnd.evaluation.rows import markdown_table
from mmfeatjnd.functional import (
    Moments,
    channel_moments,
    frequency_moments,
    log_sensitivity,
    to_grid,
    to_maps,
    to_tokens,
    visible_rank,
)
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models import Run, Visit, find_read_levels
from mmfeatjnd.models.estimator_file import host_hash
from mmfeatjnd.models.metric_file import (
    FrequencyMetric,
    LevelMetric,
    TaskMetric,
)
from mmfeatjnd.models.necks import FeatJNDNeck
from mmfeatjnd.models.run import check_faults
from mmfeatjnd.models.sensitivity import task_gradients
from mmfeatjnd.utils import ConfigError, log
from .curve import OperationTest
from .data import split_dataloader

#: Side of the blocks of a DCT, 'auto', or None: no DCT.
Block = Union[int, str, None]
#: Grid of a static map by the number of axes of a feature, as estimators keep
#: it.
_GRIDS = {2: (1, ), 3: (256, ), 4: (32, 32)}
#: Elements of E[g^2] that are kept before their tokens are summed up.
_KEPT = 1 << 26
#: Least number of gradients for each channel.
_ENOUGH = 4
#: Of a rank: what matters, and what there is at all.
TOLERANCES = (1e-3, 1e-6)


def _merged(known: Optional[Moments], new: Moments) -> Moments:
    return new if known is None else known.merged(new)


class _LevelCounter:
    """What is counted of one level."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.feature: Optional[Moments] = None
        self.gradient: Optional[Moments] = None
        # of the map, and of what has no place on it
        self._by_frequency: Tuple[_ByFrequency, ...] = ()
        self._pooled = self._power = 0.0
        self._kept: List[Tensor] = []
        # of rows: their number, log w, and its map
        self._sums: Optional[Tensor] = None
        self._grid: Sequence[int] = ()

    def add(self, feature: Tensor, gradients: Sequence[Tensor]) -> None:
        """Count features of one size, and the draws of their gradients."""
        self._grid = _GRIDS[feature.dim()]
        information = 0.0
        self.feature = _merged(self.feature, channel_moments(feature))
        for gradient in gradients:
            self.gradient = _merged(self.gradient, channel_moments(gradient))
            information = information + gradient.square() / len(gradients)
            tokens = to_tokens(gradient).double()
            self._pooled += tokens.mean(1).square().sum() * tokens.size(1)
            self._power += tokens.square().sum()
        self._kept.append(information)
        if sum(x.numel() for x in self._kept) > _KEPT:
            self._sum_up()
        if self.block is None:
            return
        maps = to_maps(feature)
        if not self._by_frequency:
            size = maps[0].shape[2:]
            block = self.block
            if block == 'auto' or min(size) == 1:
                block = fitting_block(size)
            self._by_frequency = tuple(
                _ByFrequency(n) for n in (block, 1)[:len(maps)])
        drawn = [to_maps(g) for g in gradients]
        for counter, x, *g in zip(self._by_frequency, maps, *drawn):
            counter.add(x, g)

    def _sum_up(self) -> None:
        """log w of what is kept, by the deviations of all pictures so far: of
        small features, all pictures."""
        std = self.feature.std.float()
        for information in self._kept:
            log_w = log_sensitivity(information, std)
            maps = to_grid(log_w, self._grid)
            sums = torch.cat([
                log_w.new_full((1, ), len(log_w)),
                log_w.flatten(1).mean(1).sum()[None],
                maps.sum(0).flatten()
            ]).double()
            self._sums = sums if self._sums is None else self._sums + sums
        self._kept = []

    def found(self, images: int, pixels: float) -> LevelMetric:
        """The metric of the level, of so many pictures and pixels."""
        self._sum_up()
        rows, log_w, *_ = self._sums.tolist()
        feature, gradient = self.feature, self.gradient
        frequencies, rest = (
            *(x.found(images) for x in self._by_frequency), None, None)[:2]
        mean, covariance = _of(feature)
        return LevelMetric(
            tokens=feature.count / images,
            elements_per_pixel=feature.count * len(mean) / pixels,
            pooled=float(self._pooled / self._power),
            log_w=log_w / rows,
            log_w_map=_cpu(self._sums[2:] / rows).view(*self._grid),
            mean=mean,
            std=_cpu(feature.std),
            covariance=covariance,
            metric=_cpu(gradient.second),
            frequencies=frequencies,
            rest=rest)


class _ByFrequency:
    """Moments of a map in the coefficients of a block DCT."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.feature: Optional[Moments] = None
        self.gradient: Optional[Moments] = None

    def add(self, feature: Tensor, gradients: Sequence[Tensor]) -> None:
        self.feature = _merged(
            self.feature, frequency_moments(feature, self.block))
        for gradient in gradients:
            self.gradient = _merged(
                self.gradient, frequency_moments(gradient, self.block, 'zero'))

    def found(self, images: int) -> FrequencyMetric:
        return FrequencyMetric(self.block, self.feature.count / images,
                               *_of(self.feature), _cpu(self.gradient.second))


#: Sides of blocks that 'auto' chooses from.
BLOCKS = range(4, 14)


def fitting_block(size: Sequence[int]) -> int:
    """The side of blocks for maps of a size: the largest of 4 to 13 tokens
    that adds hardly any padding.

    Args:
        size (Sequence[int]): Height and width.

    Returns:
        int: 1 for a single row or column.

    Example:
        >>> fitting_block((15, 15)), fitting_block((52, 52))
        (5, 13)
        >>> fitting_block((200, 334)), fitting_block((1, 300))
        (10, 1)
    """
    if min(size) < BLOCKS[0]:
        return 1

    def padded(block: int) -> float:
        return math.prod(-(-n // block) * block / n for n in size)

    least = min(map(padded, BLOCKS))
    return max(b for b in BLOCKS if padded(b) <= 1.02 * least)


def _cpu(x: Tensor) -> Tensor:
    return x.float().cpu()


def _of(moments: Moments) -> tuple:
    return _cpu(moments.mean), _cpu(moments.covariance)


class _Seen(NamedTuple):
    level: int
    feature: Tensor
    gradient: Tensor


class _Look:
    """Keeps features and gradients without their padding, and changes
    nothing."""

    needs_sensitivity = True
    name = 'the task metric'

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        visit.run.kept.append(_Seen(level, feature, visit.sensitivity))
        return feature


def metric_of(neck: FeatJNDNeck,
              loader: DataLoader,
              draws: int = 2,
              block: Block = None,
              seed: int = 0) -> TaskMetric:
    """The task metric of the split of a neck, over the pictures of a loader.

    Args:
        neck (FeatJNDNeck): It knows its host, which is in eval mode.
        loader (DataLoader): Pictures, as for a test.
        draws (int): Draws of the gradient for each. Defaults to 2.
        block (int | str, optional): Side of the blocks of a DCT, tokens, or
            'auto': by :func:`fitting_block` of each level's first map.
            Defaults to None: no moments by frequency.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        TaskMetric: On the CPU.

    Raises:
        ConfigError: The split lies behind a RoI extractor.

    Example:
        >>> from mmfeatjnd.apis import build_runner
        >>> from mmfeatjnd.models import neck_at
        >>> runner = build_runner(cfg)
        >>> neck = neck_at(runner.model.eval())
        >>> metric = metric_of(neck, split_dataloader(runner, 'train'))
        >>> metric.split, metric.images
        ('backbone.layer2', 8)
    """
    if neck.by_region:
        raise ConfigError(
            f"split='{neck.split}' sees the regions that the host's loss "
            'samples, and others where it predicts, so it has no task metric. '
            'Use a split before them.')
    if draws < 1 or (isinstance(block, int) and block < 1):
        raise ValueError(f'draws and block must be at least 1, but got '
                         f'draws={draws} and block={block}')
    host, adapter = neck.host, adapter_of(neck.host)
    counters: Dict[int, _LevelCounter] = {}
    images, pixels = 0, 0.0
    look = _Look()
    neck.forget()
    bar = ProgressBar(len(loader))
    for batch in loader:
        data = host.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data.get('data_samples')
        find_read_levels(neck, inputs, samples)
        with torch.no_grad():
            content = adapter.content(host, inputs, samples, False)
            features, found = task_gradients(neck, inputs, samples, draws,
                                             seed)
            seen: List[List[_Seen]] = []
            for gradients in found:
                run = Run(look, neck, samples or range(len(inputs)),
                          content=content, sensitivity=gradients)
                for level, calls in features.items():
                    for feature in calls:
                        run.apply(feature, level)
                run.finish()
                seen.append(run.kept)
            if not images:
                check_faults([run])
            for parts in zip(*seen):
                level = parts[0].level
                if level not in counters:
                    counters[level] = _LevelCounter(block)
                counters[level].add(parts[0].feature,
                                    [p.gradient for p in parts])
        images += len(inputs)
        pixels += sum(h * w for h, w, *_ in content or
                      [inputs.shape[-2:]] * len(inputs))
        bar.update()
    metric = TaskMetric(
        levels={
            i: counters[i].found(images, pixels) for i in sorted(counters)
        },
        split=neck.split,
        configured=tuple(neck.levels),
        host_hash=host_hash(host),
        images=images,
        draws=draws,
        seed=seed)
    _warn_of_few(metric)
    return metric


def _warn_of_few(metric: TaskMetric) -> None:
    """Tell where the rank may be that of the sample."""
    drawn = metric.images * metric.draws
    for row in metric_rows(metric):
        # what only reads the mean over the tokens has one gradient for all
        tokens = 1 if row['pooled'] > 0.99 else row['tokens']
        if drawn * tokens < _ENOUGH * row['channels']:
            log(f"level {row['level']}: {drawn * tokens:.0f} different "
                f"gradients for {row['channels']} channels are too few to "
                'tell what is seen from what is not. Take more images or '
                'draws.', logging.WARNING)


def estimate_metric(cfg: Config,
                    checkpoint: str,
                    images: int = 256,
                    draws: int = 2,
                    split: Optional[str] = None,
                    levels: Optional[Sequence[int]] = None,
                    block: Block = None,
                    seed: int = 0) -> TaskMetric:
    """The task metric of a split of a host: what noise on its features costs.

    Training pictures go through the pipeline of the test; their annotations
    are not used. Every picture is seen once: its features, and ``draws``
    gradients of the task at the split.

    Args:
        cfg (Config): A config of any host, with ``train_dataloader`` and
            ``test_dataloader``.
        checkpoint (str): The host's, with an estimator or without.
        images (int): Number of pictures, drawn at random; all of a smaller
            set. Defaults to 256.
        draws (int): Draws of the gradient for each. Defaults to 2.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the config's; 'backbone' for a plain host.
        levels (Sequence[int], optional): See there. Defaults to None: all.
        block (int | str, optional): Side of the blocks of a DCT, tokens, or
            'auto': moments by frequency, too, which take ``block**2`` times
            the memory, see :func:`metric_of`. Defaults to None: none.
        seed (int): Seed of the choice of pictures, and of the draws. Defaults
            to 0.

    Returns:
        TaskMetric: For :func:`mmfeatjnd.models.metric_file.save_metric`.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ConfigError: See :func:`metric_of`; or the config has no training
            pictures, or no such split.

    Example:
        >>> metric = estimate_metric(cfg, checkpoint, images=4, block=4)
        Loads checkpoint ...
        >>> level = metric.levels[0]
        >>> level.metric.shape, level.frequencies.metric.shape
        (torch.Size([16, 16]), torch.Size([16, 16, 16]))
    """
    test = OperationTest(cfg, checkpoint, (), split, levels)
    loader = split_dataloader(test.runner, 'train', sample=images, seed=seed)
    return metric_of(test.neck, loader, draws, block, seed)


def metric_rows(metric: TaskMetric) -> List[dict]:
    """What a table says of every level.

    Args:
        metric (TaskMetric): The metric.

    Returns:
        list[dict]: ``level``, ``channels``, ``tokens`` of a picture,
        ``elements_per_pixel``, ``visible``: by tolerance the number of
        directions that the rest of the host sees, ``null_share``: by
        tolerance the share of the others, ``pooled``: see
        :class:`LevelMetric`, ``trace``: tr(M R) in nats, twice what noise
        with the feature's own covariance costs on one token, and ``log_w``,
        its mean over tokens in nats.

    Example:
        >>> metric = estimate_metric(cfg, checkpoint, images=4)
        Loads checkpoint ...
        >>> row, = metric_rows(metric)
        >>> row['channels'], row['visible'][1e-3] <= 16
        (16, True)
    """
    rows = []
    for index, level in metric.levels.items():
        matrix = level.metric.double()
        visible = {t: int(visible_rank(matrix, t)) for t in TOLERANCES}
        rows.append(
            dict(
                level=index,
                channels=level.channels,
                tokens=level.tokens,
                elements_per_pixel=level.elements_per_pixel,
                visible=visible,
                null_share={
                    t: 1 - rank / level.channels
                    for t, rank in visible.items()
                },
                pooled=level.pooled,
                trace=float((matrix * level.covariance.double()).sum()),
                log_w=level.log_w))
    return rows


def metric_table(metric: TaskMetric) -> str:
    """The rows of :func:`metric_rows` as Markdown.

    Args:
        metric (TaskMetric): The metric.

    Returns:
        str: One line a level.

    Example:
        >>> metric = estimate_metric(cfg, checkpoint, images=4)
        Loads checkpoint ...
        >>> print(metric_table(metric))
        | level | channels | ...
    """
    head = ['level', 'channels', 'tokens', 'elements/pixel']
    for tolerance in TOLERANCES:
        head += [f'visible at {tolerance:.0e}', 'null space']
    lines = []
    for row in metric_rows(metric):
        line = [str(row['level']), str(row['channels']),
                f"{row['tokens']:.0f}", f"{row['elements_per_pixel']:.3f}"]
        for tolerance in TOLERANCES:
            line += [str(row['visible'][tolerance]),
                     f"{row['null_share'][tolerance]:.1%}"]
        lines.append([*line, f"{row['pooled']:.1%}", f"{row['trace']:.3g}",
                      f"{row['log_w']:.2f}"])
    return markdown_table(
        [*head, 'mean only', 'tr(M R), nats', 'mean log w'], lines)
