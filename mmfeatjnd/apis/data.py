"""Data loaders over the images of a config, through the test pipeline."""
import copy
from typing import Optional

import torch
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Subset

from mmfeatjnd.utils import ConfigError

SPLITS = ('test', 'train')


def split_dataloader(runner: Runner,
                     split: str = 'test',
                     every: int = 1,
                     sample: Optional[int] = None,
                     seed: int = 0) -> DataLoader:
    """Images of a split through the pipeline of the test.

    Args:
        runner (Runner): Runner of a config with a ``test_dataloader``.
        split (str): 'test', or 'train': the images of ``train_dataloader``.
            Defaults to 'test'.
        every (int): Only every so many-th image, in the data set's order.
            Defaults to 1.
        sample (int, optional): Only so many images, drawn at random; all of a
            smaller set. Defaults to None: no drawing.
        seed (int): Seed of the drawing. Defaults to 0.

    Returns:
        DataLoader: In the data set's order, with the batch size of the test.

    Raises:
        ConfigError: The config has no such data loader.

    Example:
        >>> from mmfeatjnd.apis import build_runner
        >>> loader = split_dataloader(build_runner(cfg), every=2)
        >>> len(loader.dataset)
        4
    """
    cfg = copy.deepcopy(runner.cfg.test_dataloader)
    source = runner.cfg.get(f'{split}_dataloader')
    if not cfg or not source:
        raise ConfigError(f'the config has no {split}_dataloader: set one, '
                          'or use the images of another split')
    dataset = copy.deepcopy(source.dataset)
    inner = _innermost(dataset)
    inner.pipeline = _innermost(cfg.dataset).pipeline
    if split == 'train':
        # augmentation by several images, repetition, class balance
        dataset = inner
    cfg.dataset = dataset
    if every > 1 or sample is not None:
        with DefaultScope.overwrite_default_scope(
                runner.cfg.get('default_scope')):
            whole = DATASETS.build(dataset)
        indices = torch.arange(0, len(whole), every)
        if sample is not None and sample < len(indices):
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randperm(len(indices), generator=generator)
            indices = indices[drawn[:sample].sort().values]
        cfg.dataset = _Part(whole, indices.tolist())
    return runner.build_dataloader(cfg)


class _Part(Subset):
    """Some images of a data set, which may itself be a part or several."""

    @property
    def metainfo(self) -> dict:
        """dict: Of the whole."""
        return self.dataset.metainfo


def _innermost(dataset: dict) -> dict:
    """The data set within wrappers; of several the first."""
    while dataset.get('dataset') or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset
