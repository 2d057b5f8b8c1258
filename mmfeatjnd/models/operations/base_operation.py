"""What every operation on features shares."""
from abc import ABC, abstractmethod
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import image_keys


def image_ids(data_samples: Optional[Sequence], batch_size: int) -> list:
    """Identities of the images of a batch, whatever the host calls them.

    The noise of an image depends on its identity, so it is the same in any
    batch and on any number of processes. Without data samples it is the
    position in the batch.
    """
    ids = []
    for i in range(batch_size):
        sample = data_samples[i] if data_samples else None
        for name in ('img_id', 'sample_idx', 'img_path'):
            value = sample.get(name, None) if sample is not None else None
            if value is not None:
                break
        if name == 'img_path' and value is not None:
            # where the data set lies must not matter
            value = '/'.join(Path(value).parts[-2:])
        ids.append(i if value is None else value)
    return ids


def check_finite(feature: Tensor, level: int, split: str) -> None:
    """Raise if the host emits NaN or infinite values at the split."""
    if not torch.isfinite(feature).all():
        raise ValueError(
            f"NaN or infinite values in level {level} at split='{split}': "
            'the host is broken before any distortion. Check its checkpoint '
            'and its input.')


class BaseOperation(ABC):
    """Changes every configured level of a batch, and measures what it does.

    An operation of :class:`FeatJNDNeck`. Call :meth:`start` before each
    batch, and :meth:`measured` after it.

    Args:
        seed (int): Seed of its random part. Defaults to 0.
    """

    #: Whether it needs the estimators, and the squared task gradient.
    needs_jnd = False
    needs_sensitivity = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.start(None, 0)

    @property
    @abstractmethod
    def name(self) -> str:
        """How errors and rows of a curve name it."""

    def check(self, neck) -> None:
        """Raise if it needs the estimators and they were never trained."""
        if self.needs_jnd and not all(e.num_updates for e in neck.estimators):
            raise RuntimeError(
                f'{self.name} needs a trained estimator, but this one never '
                'was. Test a checkpoint of FeatJND, or name an estimator '
                'file.')

    def start(self,
              data_samples: Optional[Sequence],
              batch_size: int,
              sensitivity: Optional[Dict[int, Tensor]] = None) -> None:
        """Name the images of the next batch.

        Args:
            data_samples (Sequence, optional): The host's data samples.
            batch_size (int): Number of images.
            sensitivity (dict, optional): Squared task gradient of each level,
                for the operations that need it. Defaults to None.
        """
        self.keys = image_keys(image_ids(data_samples, batch_size), self.seed)
        self.sensitivity = sensitivity
        self.levels = set()  # that were changed
        self._measured: Dict[str, List[Tensor]] = defaultdict(list)

    def _begin(self, feature: Tensor, level: int,
               neck) -> Tuple[Tensor, Optional[Tensor]]:
        """Check one level; its keys (B,) and squared task gradient."""
        check_finite(feature, level, neck.split)
        batch = feature.size(0)
        # a host that views each image several times (patches, windows) runs
        # the split with a multiple of the batch
        if not len(self.keys) or batch % len(self.keys):
            raise RuntimeError(
                f'{type(self).__name__}: start() named {len(self.keys)} '
                f"images, but split='{neck.split}' got a batch of {batch}.")
        keys = self.keys.to(feature.device)
        if batch != len(keys):
            keys = keys.repeat(batch // len(keys))
        self.levels.add(level)
        sensitivity = None
        if self.needs_sensitivity:
            sensitivity = self.sensitivity[level]
        return keys, sensitivity

    @abstractmethod
    def __call__(self, feature: Tensor, level: int, neck) -> Tensor:
        """Change one level: (B, ...) to the same shape."""

    def measured(self) -> Dict[str, Tensor]:
        """Of the batch since :meth:`start`, each (B,), the mean over the
        levels."""
        return {
            k: torch.stack(v).mean(0)
            for k, v in self._measured.items()
        }

    @abstractmethod
    def row(self, mean: Dict[str, float]) -> dict:
        """A row of a curve from the means of what was measured."""
