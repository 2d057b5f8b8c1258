"""A trained DMV-JND that changes batches of pixels."""
import copy
from contextlib import nullcontext
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from mmfeatjnd.functional import image_keys, uniform_noise
from mmfeatjnd.functional.images import Images
from mmfeatjnd.functional.pixel_noise import PIXEL_DISTORTIONS
from mmfeatjnd.models.dmv_jnd import SizeGroup, group_batch, load_dmv_jnd
from mmfeatjnd.models.dmv_jnd.batches import in_batch_order
from mmfeatjnd.models.run import image_ids
from mmfeatjnd.models.step_counter import StepCounter

_STRENGTH_STREAM = 1 << 22
# Photometric augmentations of floats do not clip: MMDetection's leaves about
# -72 to 430. What a pipeline normalized is below 16, or, if by a mean alone,
# goes down to about -120.
_LOWEST, _DARKEST = -80, 16
Strength = Union[float, Sequence[float]]


def _interval(strength: Strength) -> Tuple[float, float]:
    fixed = isinstance(strength, (int, float))
    ends = [strength] * 2 if fixed else list(strength)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
        raise ValueError('DMVJNDPreprocessor: strength must be a number or '
                         f'(low, high) of at least 0, but got {strength!r}.')
    return float(ends[0]), float(ends[1])


@dataclass(eq=False)
class PixelDistortion:
    """What a data preprocessor of
    :func:`mmfeatjnd.models.build_dmv_jnd_preprocessor` does to images, and
    the settings of it.

    Not a module, so that the DMV-JND model is in no checkpoint, optimizer or
    DDP wrapper of the host. All but ``jnd`` and ``image_norm`` may be changed
    between batches.

    Args:
        jnd (dict): ``config`` and ``checkpoint`` of a trained DMV-JND, see
            :func:`mmfeatjnd.models.load_dmv_jnd`. It is loaded once the other
            settings are found to be right.
        distortion (str): 'dmv-jnd', or 'gaussian', white noise of the same
            mean squared error in every image, or a control; see
            :meth:`mmfeatjnd.models.DMVJND.distort`. Defaults to 'dmv-jnd'.
        strength (float | Sequence[float]): Factor of the JND, >= 0; (low,
            high) is drawn uniformly for each image. Defaults to 1.
        seed (int): Seed of all that is drawn. An image gets the same in every
            test, and other values in every training step; it is known by its
            id or its file, without data samples by its position. Defaults to
            0.
        train (bool): Distort in training. Defaults to True.
        test (bool): Distort in validation, testing and inference. Defaults
            to True.
        swap_channels (bool): The images come as BGR and the DMV-JND was
            trained on RGB, or the reverse. Defaults to False.
        image_norm (dict, optional): ``mean`` and ``std``, in pixels and in
            the images' order of channels, if the data pipeline normalizes
            them. Defaults to None: they come as pixels in [0, 255].

    Attributes:
        model (DMVJND): Trained and frozen.

    Raises:
        ValueError: An unknown distortion, or a strength or ``image_norm``
            that is none; also what ``load_dmv_jnd`` raises.
    """
    jnd: dict
    distortion: str = 'dmv-jnd'
    strength: Strength = 1.0
    seed: int = 0
    train: bool = True
    test: bool = True
    swap_channels: bool = False
    image_norm: Optional[dict] = None

    def __post_init__(self) -> None:
        if self.distortion not in PIXEL_DISTORTIONS:
            raise ValueError(
                'DMVJNDPreprocessor: distortion must be one of '
                f'{PIXEL_DISTORTIONS}, but got {self.distortion!r}.')
        _interval(self.strength)
        self._norm: List[Tensor] = []
        if self.image_norm is not None:
            if set(self.image_norm) != {'mean', 'std'}:
                raise ValueError(
                    'DMVJNDPreprocessor: image_norm must be dict(mean=..., '
                    f'std=...), but got {dict(self.image_norm)}.')
            self._norm = [
                torch.tensor(self.image_norm[k],
                             dtype=torch.float).view(-1, 1, 1)
                for k in ('mean', 'std')
            ]
        self._checked = False
        self._steps = StepCounter()
        self.model = load_dmv_jnd(**self.jnd)

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
            was = 'after undoing image_norm ' if self._norm else ''
            raise ValueError(
                'DMVJNDPreprocessor needs pixels in [0, 255], but the images '
                f'are {was}in [{low:.4g}, {high:.4g}]. If the data pipeline '
                'normalizes them, give its image_norm=dict(mean=..., std=...)'
                ' in pixels and in the order of channels of the images; mean='
                '[0], std=[255] for images in [0, 1].')

    def _distort(self, group: SizeGroup, strength: Tensor,
                 seed: int) -> Tensor:
        """Images of one size, (n, 3, h, w), in the host's convention."""
        images = group.images
        if self._norm:
            mean, std = self._norm
            images = images * std + mean
        if self.swap_channels:
            images = images.flip(-3)
        # the same images with the host in mixed precision and without
        full_precision = nullcontext()
        if images.device.type in ('cpu', 'cuda'):
            full_precision = torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), full_precision:
            images = self.model.distort(
                self.model.estimate(images, group.data_samples, group.ids),
                self.distortion, strength, seed).images
        if self.swap_channels:
            images = images.flip(-3)
        return (images - mean) / std if self._norm else images

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
        self._norm = [x.to(device) for x in self._norm]
        if not images[0].is_floating_point():
            if self._norm:
                raise ValueError(
                    f'DMVJNDPreprocessor: images of {images[0].dtype} are not '
                    'normalized. Remove image_norm.')
        elif not self._checked:
            undone = images
            if self._norm:
                undone = [x * self._norm[1] + self._norm[0] for x in images]
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
        groups = group_batch(images, data_samples)
        distorted = [
            self._distort(group, strength[group.positions], seed)
            for group in groups
        ]
        if isinstance(images, Tensor):
            return distorted[0]
        return in_batch_order(groups, distorted)
