"""DMV-JND-NET: the JND of pixels, for vision models as receivers."""
from collections import Counter
from functools import partial
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.model import BaseModel, ModuleList
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmfeatjnd.functional import image_keys
from mmfeatjnd.functional.dmv_jnd import (
    mean_magnitude,
    mean_squared_error,
    merge_attention,
    target_magnitude,
)
from mmfeatjnd.functional.images import Images, resize_images
from mmfeatjnd.functional.layout import per_image
from mmfeatjnd.functional.pixel_noise import (
    PIXEL_DISTORTIONS,
    control,
    match_power,
)
from mmfeatjnd.models.run import image_ids
from mmfeatjnd.registry import MODELS
from .batches import (
    DistortedImages,
    PixelJND,
    SizeGroup,
    group_batch,
    in_batch_order,
)


@MODELS.register_module()
class DMVJND(BaseModel):
    r"""DMV-JND (Jin et al., arXiv 2102.08168): e = E(x, c), so large and so
    placed that the tasks do not notice x + e.

    The tasks are frozen, their own predictions on x are their labels, and
    their attention is merged into c. Any model with a task class can be one;
    the paper's are four classifiers.

    Images come as pixels in [0, 255], as the data pipeline loads them, and
    are normalized here; each task normalizes them for itself. A batch of
    several sizes passes size by size, with nothing padded in: an image's JND
    does not depend on its batch, and each size costs a pass of the net and of
    the tasks. In training a size has its own statistics of batch
    normalization.

    Args:
        tasks (Sequence[dict]): Configs of the tasks, e.g.
            :class:`ClassificationTask`.
        net (dict, optional): Config of E. Defaults to None:
            ``dict(type='mmfeatjnd.DMVJNDNet')``.
        objective (dict, optional): Config of the loss. Defaults to None:
            ``dict(type='mmfeatjnd.DMVJNDLoss')``.
        clip (bool): Clip x + e to [0, 255] and let e be what remains of it,
            in the losses and in every measurement: an image is an image. The
            paper prints x + e and mentions no clipping, which is
            ``clip=False``. Defaults to True.
        mean (float): Mean of the normalization, in pixels. Defaults to 127.5.
        std (float): Standard deviation of the normalization, in pixels.
            Defaults to 127.5: with the mean the paper's 0.5 and 0.5 of images
            in [0, 1].
        test_cfg (dict, optional): Arguments of :meth:`distort` in testing.
            Defaults to None: the JND itself.
        data_preprocessor (dict, optional): Defaults to None: MMEngine's
            ``BaseDataPreprocessor``, which changes no pixel.
        init_cfg (dict, optional): Config of the initialization. Defaults to
            None.

    Raises:
        ValueError: No tasks, two of the same name, or classifiers of several
            numbers of classes.
    """

    def __init__(self,
                 tasks: Sequence[dict],
                 net: Optional[dict] = None,
                 objective: Optional[dict] = None,
                 clip: bool = True,
                 mean: float = 127.5,
                 std: float = 127.5,
                 test_cfg: Optional[dict] = None,
                 data_preprocessor: Optional[dict] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        # MMEngine's: PyTorch's would not pass init_weights on
        self.tasks = ModuleList(MODELS.build(t) for t in tasks)
        self._check_tasks()
        self.net = MODELS.build(net or dict(type='mmfeatjnd.DMVJNDNet'))
        self.objective = MODELS.build(
            objective or dict(type='mmfeatjnd.DMVJNDLoss'))
        self.clip = clip
        self.mean = mean
        self.std = std
        self.test_cfg = dict(test_cfg or {})

    def _check_tasks(self) -> None:
        if not self.tasks:
            raise ValueError('DMVJND: `tasks` is empty')
        for name, number in Counter(t.name for t in self.tasks).items():
            if number > 1:
                raise ValueError(f'DMVJND: {number} tasks are called {name!r}.'
                                 ' Give each a `name` of its own.')
        classes = {
            t.name: t.num_classes
            for t in self.tasks if hasattr(t, 'num_classes')
        }
        if len(set(classes.values())) > 1:
            raise ValueError(
                'DMVJND: the classifiers have different numbers of classes, '
                f'{classes}. Train them on the same data set.')

    # ------------------------------------------------------------- distortion
    def _within_range(self, x: Tensor, e: Tensor) -> Tensor:
        """What is left of e in an image."""
        if not self.clip:
            return e
        low, high = (0 - self.mean) / self.std, (255 - self.mean) / self.std
        return (x + e).clamp(low, high) - x

    def _add(self, estimate: PixelJND, change: Tensor) -> DistortedImages:
        pixels = (estimate.clean + change) * self.std + self.mean
        return DistortedImages(pixels, change, estimate)

    def estimate(self,
                 images: Tensor,
                 data_samples: Optional[list] = None,
                 ids: Optional[list] = None) -> PixelJND:
        """The JND of images of one size, eq. (2) to (4).

        Args:
            images (Tensor): (B, C, H, W), pixels in [0, 255], of any dtype.
            data_samples (list, optional): The data pipeline's, which some
                tasks need. Defaults to None.
            ids (list, optional): Identities of the images, integers or
                strings, on which their noise depends. Defaults to None: those
                of the data samples, or the positions in the batch.

        Returns:
            PixelJND: The images, normalized, and their JND.

        Raises:
            ValueError: No tensor of four dimensions, another number of
                channels than the net expects, or images too small for it.
        """
        if not isinstance(images, Tensor) or images.dim() != 4:
            raise ValueError(
                'DMVJND.estimate: images must be a tensor (B, C, H, W). Use '
                'DMVJND.estimate_batch for images of several sizes.')
        self.net.check(images)
        images = images.float()
        references = [
            task.reference(images, data_samples) for task in self.tasks
        ]
        attention = merge_attention(
            [resize_images(r.attention, images.shape[-2:])
             for r in references])
        x = (images - self.mean) / self.std
        e = self._within_range(x, self.net(x, attention).float())
        return PixelJND(x, e, attention, references, ids
                        or image_ids(data_samples, len(x)))

    def estimate_batch(
        self,
        inputs: Images,
        data_samples: Optional[list] = None
    ) -> List[Tuple[SizeGroup, PixelJND]]:
        """The JND of images of any sizes, by :meth:`estimate`, size by size.

        Args:
            inputs (Tensor | Sequence[Tensor]): (B, C, H, W), or (C, h, w)
                each: pixels in [0, 255], of any dtype.
            data_samples (list, optional): The data pipeline's. Defaults to
                None.

        Returns:
            list[tuple[SizeGroup, PixelJND]]: The images of each size, and
            their JND.
        """
        return [(group,
                 self.estimate(group.images, group.data_samples, group.ids))
                for group in group_batch(inputs, data_samples)]

    def distort(self,
                estimate: PixelJND,
                distortion: str = 'dmv-jnd',
                strength: Union[float, Tensor] = 1.0,
                seed: int = 0) -> DistortedImages:
        """Add the JND or a part of it to images, or noise of its power.

        Args:
            estimate (PixelJND): Result of :meth:`estimate`.
            distortion (str): 'dmv-jnd'; or 'gaussian', white noise; or, as
                controls of ours, 'sign-flipped', -e, and 'random-sign', e
                with a random sign for every value. All have the mean squared
                error of the JND on every image, after clipping, or as near to
                it as clipped noise comes. Defaults to 'dmv-jnd'.
            strength (float | Tensor): Factor of the JND, (B,) or one for all,
                >= 0. Defaults to 1.
            seed (int): Seed of the noise, which depends on nothing else but
                the image's identity. Defaults to 0.

        Returns:
            DistortedImages: The images with the change.

        Raises:
            ValueError: An unknown distortion.
        """
        if distortion not in PIXEL_DISTORTIONS:
            raise ValueError('distortion must be one of '
                             f'{PIXEL_DISTORTIONS}, but got {distortion!r}')
        x, e = estimate.clean, estimate.jnd
        if isinstance(strength, Tensor):
            strength = per_image(strength, e)
        e = self._within_range(x, e * strength)
        if distortion != 'dmv-jnd':
            keys = image_keys(estimate.ids, seed, device=x.device)
            noise = control(e, distortion, keys)
            e = match_power(noise, e, partial(self._within_range, x))
        return self._add(estimate, e)

    def with_images(self, estimate: PixelJND,
                    images: Tensor) -> DistortedImages:
        """Other pixels in the place of x + e, e.g. decoded ones.

        Args:
            estimate (PixelJND): Result of :meth:`estimate`.
            images (Tensor): (B, C, H, W), pixels in [0, 255], of any dtype.

        Returns:
            DistortedImages: These images, and their difference from x.
        """
        change = (images.float() - self.mean) / self.std - estimate.clean
        return self._add(estimate, change)

    # ------------------------------------------------------------------ modes
    def forward(self,
                inputs: Images,
                data_samples: Optional[list] = None,
                mode: str = 'tensor') -> Union[Tensor, list, dict]:
        """MMEngine's modes.

        Args:
            inputs (Tensor | Sequence[Tensor]): (B, C, H, W), or (C, h, w)
                each: pixels in [0, 255], of any dtype.
            data_samples (list, optional): The data pipeline's. Defaults to
                None.
            mode (str): 'tensor': e, (B, C, H, W), or (C, h, w) each where
                sizes differ; 'loss': the dict of the objective; 'predict':
                the data samples with ``dmv_jnd``. Defaults to 'tensor'.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            groups, found = zip(*self.estimate_batch(inputs, data_samples))
            jnd = [x.jnd for x in found]
            return jnd[0] if len(jnd) == 1 else in_batch_order(groups, jnd)
        raise RuntimeError(f'Invalid mode "{mode}".')

    def loss(self,
             inputs: Images,
             data_samples: Optional[list] = None) -> Dict[str, Tensor]:
        """The objective's dict, see :class:`DMVJNDLoss`.

        Images of several sizes pass size by size, and every term is the mean
        over the images: the mean of the sizes' terms, weighted by their
        numbers of images.
        """
        found = self.estimate_batch(inputs, data_samples)
        terms = [self._loss(estimate) for _, estimate in found]
        shares = [len(x.clean) / len(inputs) for _, x in found]
        return {
            name: sum(share * part[name] for share, part in zip(shares, terms))
            for name in terms[0]
        }

    def _loss(self, found: PixelJND) -> Dict[str, Tensor]:
        images = self._add(found, found.jnd).images
        task_losses = [
            task.loss(images, reference)
            for task, reference in zip(self.tasks, found.references)
        ]
        return self.objective(task_losses, found.jnd, found.attention)

    @torch.no_grad()
    def predict(self,
                inputs: Images,
                data_samples: Optional[list] = None) -> list:
        """What the tasks make of the distorted images.

        Returns:
            list: The data samples, see :meth:`to_data_samples`.
        """
        groups, found = zip(*self.estimate_batch(inputs, data_samples))
        return in_batch_order(groups, [
            self.to_data_samples(
                self.distort(estimate, **self.test_cfg), group.data_samples)
            for group, estimate in zip(groups, found)
        ])

    @torch.no_grad()
    def to_data_samples(self,
                        distorted: DistortedImages,
                        data_samples: Optional[list] = None) -> list:
        """Write into data samples what the tasks make of distorted images.

        Args:
            distorted (DistortedImages): The images.
            data_samples (list, optional): One an image. Defaults to None: new
                ones.

        Returns:
            list: The data samples, each with ``dmv_jnd``, a dict of ``mse``
            (of the change, in pixels squared), ``magnitude`` (N0), ``target``
            (N) and ``tasks``: for each by name what its ``compare`` says.
        """
        images, change, found = distorted
        measured = dict(
            mse=mean_squared_error(change) * self.std**2,
            magnitude=mean_magnitude(change),
            target=target_magnitude(found.attention,
                                    self.objective.target_scale))
        tasks = {
            task.name: task.compare(images, reference)
            for task, reference in zip(self.tasks, found.references)
        }
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in images]
        for i, sample in enumerate(data_samples):
            row = {name: value[i] for name, value in measured.items()}
            row['tasks'] = {
                task: {name: value[i] for name, value in result.items()}
                for task, result in tasks.items()
            }
            sample.set_field(row, 'dmv_jnd')
        return data_samples
