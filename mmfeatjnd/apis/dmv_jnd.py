"""Measure DMV-JND at several strengths, and against noise, in one pass."""
import copy
from typing import List, NamedTuple, Sequence

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.utils import ProgressBar

from mmfeatjnd.models import DMVJND, CheckpointError
from mmfeatjnd.utils import ConfigError, unwrapped
from .building import build_runner
from .curve import new_evaluator
from .data import split_dataloader

#: The homogeneity test of the paper, section V-F.
HOMOGENEITY = tuple(k / 9 for k in range(8, 0, -1))


class Point(NamedTuple):
    """One row: a part of the JND, or noise or a control of its power.

    Attributes:
        distortion (str): See :meth:`mmfeatjnd.models.DMVJND.change`. Defaults
            to 'dmv-jnd'.
        strength (float): Times the JND. Defaults to 1.
        seed (int): Of the noise. Defaults to 0.
    """
    distortion: str = 'dmv-jnd'
    strength: float = 1.0
    seed: int = 0


def dmv_jnd_runner(cfg: Config, checkpoint: str):
    """A Runner whose model is DMV-JND with its weights.

    Args:
        cfg (Config): A config of :class:`mmfeatjnd.models.DMVJND`.
        checkpoint (str): Its checkpoint.

    Returns:
        tuple[Runner, DMVJND]: The model in evaluation mode.

    Raises:
        ConfigError: The config's model is another one.
        CheckpointError: The checkpoint is of another model.
    """
    runner = build_runner(copy.deepcopy(cfg))
    model = unwrapped(runner.model)
    if not isinstance(model, DMVJND):
        raise ConfigError(
            "DMV-JND is measured on model=dict(type='mmfeatjnd."
            f"DMVJND', ...), but got {type(model).__name__}")
    try:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except RuntimeError as error:  # it lists what is missing and foreign
        raise CheckpointError(
            f'{checkpoint} belongs to another config: {error}') from error
    return runner, model.eval()


@torch.no_grad()
def measure_dmv_jnd(cfg: Config,
                    checkpoint: str,
                    points: Sequence[Point] = (Point(), ),
                    split: str = 'test',
                    every: int = 1) -> List[dict]:
    """The metrics of ``test_evaluator`` for every point.

    The tasks see the clean images once, and the autoencoder runs once, for
    all points.

    Args:
        cfg (Config): See :func:`dmv_jnd_runner`.
        checkpoint (str): See :func:`dmv_jnd_runner`.
        points (Sequence[Point]): What to measure. Defaults to the JND itself.
        split (str): 'test', or 'train': the images of ``train_dataloader``,
            through the pipeline of the test. Defaults to 'test'.
        every (int): Only every so many-th image, of the data set's order.
            Defaults to 1.

    Returns:
        list[dict]: For every point its fields and ``metrics``.
    """
    runner, model = dmv_jnd_runner(cfg, checkpoint)
    loader = split_dataloader(runner, split, every)
    rows = [(point, new_evaluator(runner, loader)) for point in points]
    bar = ProgressBar(len(loader) * len(rows))
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        samples = data['data_samples']
        found = model.find(data['inputs'], samples)
        for point, evaluator in rows:
            changed = model.change(found, samples, *point)
            evaluator.process(model.describe(changed, samples), batch)
            bar.update()
    size = len(loader.dataset)
    return [
        dict(point._asdict(), metrics=evaluator.evaluate(size))
        for point, evaluator in rows
    ]
