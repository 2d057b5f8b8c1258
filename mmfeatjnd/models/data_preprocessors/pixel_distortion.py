"""A trained DMV-JND that changes batches of pixels."""
import copy
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor

from mmfeatjnd.functional import image_keys, uniform_noise
from mmfeatjnd.functional.images import Images
from mmfeatjnd.functional.pixel_noise import PIXEL_DISTORTIONS
from mmfeatjnd.models.dmv_jnd import DMVJND
from mmfeatjnd.models.hosts import build_host, check_checkpoint
from mmfeatjnd.models.run import image_ids
from mmfeatjnd.models.step_counter import StepCounter

_STRENGTH_STREAM = 1 << 22
# Photometric augmentations of floats do not clip: MMDetection's leaves about
# -72 to 430. What a pipeline normalized is below 16, or, if by a mean alone,
# goes down to about -120.
_LOWEST, _DARKEST = -80, 16
Strength = Union[float, Sequence[float]]


def load_dmv_jnd(config: Union[str, dict],
                 checkpoint: Optional[str] = None) -> DMVJND:
    """Build a trained DMV-JND model, frozen.

    Args:
        config (str | dict): The config that trained it, a file or its
            content.
        checkpoint (str, optional): Its checkpoint, which has the weights of
            its tasks as well. None is for a ``config`` given as a dict only:
            what that initializes the model with. Defaults to None.

    Returns:
        DMVJND: In evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        TypeError: The config's model is another one.
        ValueError: A config file without a checkpoint, or a checkpoint of
            another config.
    """
    from_file = isinstance(config, (str, Path))
    if checkpoint is None:
        if from_file:
            raise ValueError(
                'DMVJNDPreprocessor: `jnd` has no `checkpoint`, and an '
                'untrained DMV-JND means nothing. Name that of '
                f'tools/train.py {config}.')
    else:
        check_checkpoint(checkpoint, 'DMVJNDPreprocessor',
                         'Name that of a trained DMV-JND in `jnd`.')
    model = build_host(
        Config.fromfile(config) if from_file else Config(dict(config)))
    if not isinstance(model, DMVJND):
        raise TypeError(
            "DMVJNDPreprocessor: the model of `jnd`'s config must be a "
            f"'mmfeatjnd.DMVJND', but it is a {type(model).__name__}.")
    if checkpoint is None:
        model.init_weights()
    else:
        try:
            load_checkpoint(
                model, str(checkpoint), map_location='cpu', strict=True)
        except RuntimeError as error:
            raise ValueError(f'DMVJNDPreprocessor: {checkpoint!r} is not a '
                             f"checkpoint of `jnd`'s config: {error}"
                             ) from error
    return model.eval().requires_grad_(False)


def _interval(strength: Strength) -> Tuple[float, float]:
    fixed = isinstance(strength, (int, float))
    ends = [strength] * 2 if fixed else list(strength)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
        raise ValueError('DMVJNDPreprocessor: strength must be a number or '
                         f'(low, high) of at least 0, but got {strength!r}.')
    return float(ends[0]), float(ends[1])


class PixelDistortion:
    """What :func:`DMVJNDPreprocessor` does to images, and its settings.

    Not a module, so that the DMV-JND model is in no checkpoint, optimizer or
    DDP wrapper of the host. The settings may be changed between batches.

    Args:
        model (DMVJND): Trained and frozen.

    The other arguments are those of :func:`DMVJNDPreprocessor`.
    """

    def __init__(self,
                 model: DMVJND,
                 distortion: str = 'dmv-jnd',
                 strength: Strength = 1.0,
                 seed: int = 0,
                 train: bool = True,
                 test: bool = True,
                 swap_channels: bool = False,
                 image_norm: Optional[dict] = None) -> None:
        if distortion not in PIXEL_DISTORTIONS:
            raise ValueError(f'DMVJNDPreprocessor: distortion must be one of '
                             f'{PIXEL_DISTORTIONS}, but got {distortion!r}.')
        _interval(strength)
        self.norm: List[Tensor] = []
        if image_norm is not None:
            if set(image_norm) != {'mean', 'std'}:
                raise ValueError(
                    'DMVJNDPreprocessor: image_norm must be dict(mean=..., '
                    f'std=...), but got {dict(image_norm)}.')
            self.norm = [
                torch.tensor(image_norm[k], dtype=torch.float).view(-1, 1, 1)
                for k in ('mean', 'std')
            ]
        self.model = model
        self.distortion = distortion
        self.strength = strength
        self.seed = seed
        self.train = train
        self.test = test
        self.swap_channels = swap_channels
        self._checked = False
        self._steps = StepCounter()

    def __deepcopy__(self, memo: dict) -> 'PixelDistortion':
        """With the same frozen model: an EMA of the host needs no second."""
        other = copy.copy(self)
        other._steps = copy.copy(self._steps)
        return other

    def _check_range(self, pixels: Images) -> None:
        """Of the first batch only: the check waits for the device."""
        low = min(float(x.min()) for x in pixels)
        high = max(float(x.max()) for x in pixels)
        black = low == high == 0
        if not black and (low < _LOWEST or high <= _DARKEST):
            was = 'after undoing image_norm ' if self.norm else ''
            raise ValueError(
                'DMVJNDPreprocessor needs pixels in [0, 255], but the images '
                f'are {was}in [{low:.4g}, {high:.4g}]. If the data pipeline '
                'normalizes them, give its image_norm=dict(mean=..., std=...)'
                ' in pixels and in the order of channels of the images; mean='
                '[0], std=[255] for images in [0, 1].')

    def _distort(self, images: Tensor, samples: Optional[list],
                 strength: Tensor, seed: int) -> Tensor:
        """Images of one size, (B, 3, H, W), in the host's convention."""
        if self.norm:
            mean, std = self.norm
            images = images * std + mean
        if self.swap_channels:
            images = images.flip(-3)
        # the same images with the host in mixed precision and without
        full_precision = nullcontext()
        if images.device.type in ('cpu', 'cuda'):
            full_precision = torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), full_precision:
            images = self.model.distort(
                images,
                samples,
                distortion=self.distortion,
                strength=strength,
                seed=seed).images
        if self.swap_channels:
            images = images.flip(-3)
        return (images - mean) / std if self.norm else images

    def __call__(self, images: Images, data_samples: Optional[list],
                 training: bool) -> Images:
        """Distort a batch.

        Args:
            images (Tensor | Sequence[Tensor]): (B, 3, H, W), or (3, h, w)
                each, before the host's normalization and padding.
            data_samples (list, optional): The host's; they name the images.
            training (bool): Draw anew in every call.

        Returns:
            Tensor | list[Tensor]: As the images, float32.
        """
        if not len(images):
            return images
        device = images[0].device
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        self.norm = [x.to(device) for x in self.norm]
        if not images[0].is_floating_point():
            if self.norm:
                raise ValueError(
                    f'DMVJNDPreprocessor: images of {images[0].dtype} are not '
                    'normalized. Remove image_norm.')
        elif not self._checked:
            undone = images
            if self.norm:
                undone = [x * self.norm[1] + self.norm[0] for x in images]
            self._check_range(undone)
            self._checked = True

        seed = self.seed
        if training:
            seed = self._steps.next_seed(self.seed)
        low, high = _interval(self.strength)
        strength = torch.full((len(images), ), low, device=device)
        if low < high:
            keys = image_keys(
                image_ids(data_samples, len(images)), seed, device)
            unit = uniform_noise(keys, (1, ), _STRENGTH_STREAM)[:, 0]
            strength += (high - low) * (unit / 2 + 0.5)
        if isinstance(images, Tensor):
            return self._distort(images, data_samples, strength, seed)
        # size by size: what is padded in depends on the rest of the batch
        sizes: Dict[tuple, List[int]] = defaultdict(list)
        for i, image in enumerate(images):
            sizes[tuple(image.shape)].append(i)
        distorted: List[Optional[Tensor]] = [None] * len(images)
        for members in sizes.values():
            batch = self._distort(
                torch.stack([images[i] for i in members]),
                data_samples and [data_samples[i] for i in members],
                strength[members],
                # images without a name are named by their position
                seed if data_samples else seed + members[0])
            for i, image in zip(members, batch):
                distorted[i] = image
        return distorted
