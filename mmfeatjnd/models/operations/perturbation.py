"""The operation that distorts features at a requested strength."""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    DEFINITIONS,
    DISTORTIONS,
    NEEDS_JND,
    NEEDS_SENSITIVITY,
    Level,
    image_keys,
    nrmse,
    participation_ratio,
    scale_to_nrmse,
)


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


class Perturbation:
    """Distort every configured level of every image at one NRMSE.

    An operation of :class:`FeatJNDNeck`. Call :meth:`start` before each
    batch.

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
        self.seed = seed
        self.needs_jnd = distortion in NEEDS_JND
        self.needs_sensitivity = distortion in NEEDS_SENSITIVITY
        self._fn = DISTORTIONS[distortion]
        self.start(None, 0)

    def check(self, neck) -> None:
        """Raise if it needs the estimators and they were never trained."""
        if self.needs_jnd and not all(e.num_updates for e in neck.estimators):
            raise RuntimeError(
                f"distortion='{self.distortion}' needs a trained estimator, "
                'but this one never was. Test a checkpoint of FeatJND, or '
                'name an estimator file.')

    def start(self,
              data_samples: Optional[Sequence],
              batch_size: int,
              sensitivity: Optional[Dict[int, Tensor]] = None) -> None:
        """Name the images of the next batch.

        Args:
            data_samples (Sequence, optional): The host's data samples.
            batch_size (int): Number of images.
            sensitivity (dict, optional): Squared task gradient of each level,
                for the distortions that need it. Defaults to None.
        """
        self.keys = image_keys(image_ids(data_samples, batch_size), self.seed)
        self.sensitivity = sensitivity
        self.levels = set()  # that were distorted
        self._measured: Dict[str, List[Tensor]] = defaultdict(list)

    def __call__(self, feature: Tensor, level: int, neck) -> Tensor:
        check_finite(feature, level, neck.split)
        batch = feature.size(0)
        # a host that views each image several times (patches, windows) runs
        # the split with a multiple of the batch
        if not len(self.keys) or batch % len(self.keys):
            raise RuntimeError(
                f'Perturbation: start() named {len(self.keys)} images, but '
                f"split='{neck.split}' got a batch of {batch}.")
        keys = self.keys.to(feature.device)
        if batch != len(keys):
            keys = keys.repeat(batch // len(keys))
        jnd = sensitivity = None
        if self.needs_jnd:
            estimator = neck.estimator_of(level)
            jnd = estimator.distortion(estimator(feature), keys, level)
        if self.needs_sensitivity:
            sensitivity = self.sensitivity[level]
        self.levels.add(level)
        delta = self._fn(Level(feature, keys, level, jnd, sensitivity))
        delta = scale_to_nrmse(delta, feature, self.strength, self.definition)
        self._measured['nrmse'].append(
            nrmse(delta, feature, self.definition))
        self._measured['participation_ratio'].append(
            participation_ratio(delta))
        return feature.float() + delta

    def measured(self) -> Dict[str, Tensor]:
        """Of the batch since :meth:`start`: ``nrmse`` and
        ``participation_ratio``, each (B,), the mean over the levels."""
        return {
            k: torch.stack(v).mean(0)
            for k, v in self._measured.items()
        }
