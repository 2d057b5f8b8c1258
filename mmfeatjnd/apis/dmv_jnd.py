"""Measure DMV-JND at several strengths, and against noise, in one pass."""
import copy
from functools import partial
from typing import Callable, List, NamedTuple, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from mmfeatjnd.models import DMVJND, DistortedImages, PixelJND
from mmfeatjnd.models.dmv_jnd.weights import load_weights
from mmfeatjnd.utils import ConfigError, unwrapped
from .building import build_runner
from .curve import new_evaluator
from .data import split_dataloader

#: The homogeneity test of the paper, section V-F.
HOMOGENEITY = tuple(k / 9 for k in range(8, 0, -1))
#: Images of one size and their JND, to these images with another change.
Distort = Callable[[DMVJND, PixelJND], DistortedImages]


class DMVJNDSetting(NamedTuple):
    """One row: a part of the JND, or noise or a control of its power.

    Attributes:
        distortion (str): See :meth:`mmfeatjnd.models.DMVJND.distort`.
            Defaults to 'dmv-jnd'.
        strength (float): Factor of the JND, >= 0. Defaults to 1.
        seed (int): Seed of the noise. Defaults to 0.

    Example:
        >>> DMVJNDSetting('gaussian', strength=0.5)
        DMVJNDSetting(distortion='gaussian', strength=0.5, seed=0)
    """
    distortion: str = 'dmv-jnd'
    strength: float = 1.0
    seed: int = 0


def dmv_jnd_runner(cfg: Config, checkpoint: str) -> Tuple[Runner, DMVJND]:
    """A Runner whose model is DMV-JND with its weights.

    Args:
        cfg (Config): A config of :class:`mmfeatjnd.models.DMVJND`.
        checkpoint (str): Its checkpoint.

    Returns:
        tuple[Runner, DMVJND]: The model in evaluation mode.

    Raises:
        ConfigError: The config's model is another one.
        FileNotFoundError: There is no such checkpoint.
        CheckpointError: The checkpoint is of another model.

    Example:
        >>> runner, model = dmv_jnd_runner(jnd_cfg, jnd_checkpoint)
        Loads checkpoint ...
        >>> [task.name for task in model.tasks]
        ['a', 'b']
    """
    runner = build_runner(copy.deepcopy(cfg))
    model = unwrapped(runner.model)
    if not isinstance(model, DMVJND):
        raise ConfigError(
            "DMV-JND is measured on model=dict(type='mmfeatjnd."
            f"DMVJND', ...), but got {type(model).__name__}")
    load_weights(model, checkpoint, 'DMV-JND',
                 'Name the checkpoint that was trained with this config.')
    return runner, model.eval()


@torch.no_grad()
def measure_distortions(cfg: Config,
                        checkpoint: str,
                        distortions: Sequence[Distort],
                        split: str = 'test',
                        every: int = 1) -> List[dict]:
    """The metrics of ``test_evaluator`` under changes of the pixels.

    The tasks see the clean images once, and the autoencoder runs once, for
    all changes.

    Args:
        cfg (Config): See :func:`dmv_jnd_runner`.
        checkpoint (str): See :func:`dmv_jnd_runner`.
        distortions (Sequence[Callable]): Each takes the model and images with
            their JND, and returns the images with a change.
        split (str): 'test', or 'train': the images of ``train_dataloader``,
            through the pipeline of the test. Defaults to 'test'.
        every (int): Only every so many-th image, of the data set's order.
            Defaults to 1.

    Returns:
        list[dict]: The metrics under each.

    Example:
        >>> metrics, = measure_distortions(
        ...     jnd_cfg, jnd_checkpoint,
        ...     [lambda model, found: model.distort(found, strength=0)])
        Loads checkpoint ...
        >>> metrics['rca/mean']  # no change, no other label
        100.0
    """
    runner, model = dmv_jnd_runner(cfg, checkpoint)
    loader = split_dataloader(runner, split, every)
    evaluators = [new_evaluator(runner, loader) for _ in distortions]
    bar = ProgressBar(len(loader) * len(distortions))
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        groups = model.estimate_batch(data['inputs'], data['data_samples'])
        for distort, evaluator in zip(distortions, evaluators):
            for group, found in groups:
                outputs = model.to_data_samples(
                    distort(model, found), group.data_samples)
                evaluator.process(outputs, batch)
            bar.update()
    return [evaluator.evaluate(len(loader.dataset))
            for evaluator in evaluators]


def measure_dmv_jnd(cfg: Config,
                    checkpoint: str,
                    settings: Sequence[DMVJNDSetting] = (DMVJNDSetting(), ),
                    split: str = 'test',
                    every: int = 1) -> List[dict]:
    """The metrics of ``test_evaluator`` for every setting.

    Args:
        cfg (Config): See :func:`dmv_jnd_runner`.
        checkpoint (str): See :func:`dmv_jnd_runner`.
        settings (Sequence[DMVJNDSetting]): What to measure. Defaults to the
            JND itself.
        split (str): See :func:`measure_distortions`. Defaults to 'test'.
        every (int): See :func:`measure_distortions`. Defaults to 1.

    Returns:
        list[dict]: For every setting its fields and ``metrics``.

    Example:
        >>> rows = measure_dmv_jnd(jnd_cfg, jnd_checkpoint,
        ...                        [DMVJNDSetting(strength=0.5)])
        Loads checkpoint ...
        >>> rows[0]['strength'], list(rows[0]['metrics'])[:3]
        (0.5, ['rca/a', 'rca/b', 'rca/mean'])
    """
    metrics = measure_distortions(cfg, checkpoint, [
        partial(DMVJND.distort, **setting._asdict()) for setting in settings
    ], split, every)
    return [
        dict(setting._asdict(), metrics=row)
        for setting, row in zip(settings, metrics)
    ]
