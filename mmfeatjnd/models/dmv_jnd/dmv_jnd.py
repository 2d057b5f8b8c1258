"""DMV-JND-NET: the JND of pixels, for vision models as receivers."""
from collections import Counter
from functools import partial
from typing import Dict, List, NamedTuple, Optional, Sequence, Union

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
from mmfeatjnd.functional.images import (
    Images,
    crop_images,
    pad_images,
    resize_maps,
)
from mmfeatjnd.functional.layout import per_image
from mmfeatjnd.functional.pixel_noise import (
    PIXEL_DISTORTIONS,
    control,
    match_power,
)
from mmfeatjnd.models.run import image_ids
from mmfeatjnd.registry import MODELS
from .base_task import Reference


class Distorted(NamedTuple):
    """A batch of distorted images.

    Attributes:
        images (Tensor | list[Tensor]): x + e in pixels, in the sizes that
            came in; a tensor where they are equal.
        clean (Tensor): x, (B, C, H, W), normalized; padded where sizes
            differ.
        jnd (Tensor): e, (B, C, H, W), normalized; 0 in the padding.
        attention (Tensor): c, (B, 1, H, W).
        content (Tensor, optional): (B, 1, H, W), bool: where the image is;
            None: everywhere.
        references (list[Reference]): What the tasks say of the clean images.
    """
    images: Images
    clean: Tensor
    jnd: Tensor
    attention: Tensor
    content: Optional[Tensor]
    references: List[Reference]


@MODELS.register_module()
class DMVJND(BaseModel):
    r"""DMV-JND (Jin et al., arXiv 2102.08168): e = E(x, c), so large and so
    placed that the tasks do not notice x + e.

    The tasks are frozen, their own predictions on x are their labels, and
    their attention is merged into c. Any model with a task class can be one;
    the paper's are four classifiers.

    Images come as pixels in [0, 255], as the data pipeline loads them, and
    are normalized here; each task normalizes them for itself.

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
        mean (float): Of the normalization, in pixels. Defaults to 127.5.
        std (float): Of the normalization, in pixels. Defaults to 127.5: with
            the mean the paper's 0.5 and 0.5 of images in [0, 1].
        test_cfg (dict, optional): Arguments of :meth:`change` in testing.
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

    def _add(self, found: Distorted, e: Tensor) -> Distorted:
        """The images with another e."""
        if found.content is not None:
            e = e * found.content
        pixels = (found.clean + e) * self.std + self.mean
        return found._replace(
            images=crop_images(pixels, found.images), jnd=e)

    def find(self,
             images: Images,
             data_samples: Optional[list] = None) -> Distorted:
        """The JND of images, eq. (2) to (4).

        In a batch of several sizes the net sees black beside the smaller
        ones, which changes their JND a little.

        Args:
            images (Tensor | Sequence[Tensor]): (B, C, H, W), or (C, h, w)
                each: pixels in [0, 255], of any dtype.
            data_samples (list, optional): The data pipeline's, which some
                tasks need. Defaults to None.

        Raises:
            ValueError: Images with another number of channels than the net
                expects, or too small for it.
        """
        for image in [images] if isinstance(images, Tensor) else images:
            self.net.check(image)
        pixels, content = pad_images(images)
        pixels = pixels.float()
        images = crop_images(pixels, images)
        references = [
            task.reference(images, data_samples) for task in self.tasks
        ]
        attention = merge_attention(
            [resize_maps(r.attention, images) for r in references])
        x = (pixels - self.mean) / self.std
        e = self._within_range(x, self.net(x, attention).float())
        found = Distorted(images, x, e, attention, content, references)
        return self._add(found, e)

    def change(self,
               found: Distorted,
               data_samples: Optional[list] = None,
               distortion: str = 'dmv-jnd',
               strength: Union[float, Tensor] = 1.0,
               seed: int = 0) -> Distorted:
        """The same images with a part of their JND, or with noise of its
        power.

        Args:
            found (Distorted): Of :meth:`find`.
            data_samples (list, optional): The data pipeline's; they name the
                images, whose noise depends on nothing else. Defaults to None.
            distortion (str): 'dmv-jnd'; or 'gaussian', white noise; or, as
                controls of ours, 'sign-flipped', -e, and 'random-sign', e
                with a random sign for every value. All have the mean squared
                error of the JND on every image, after clipping, or as near to
                it as clipped noise comes. Defaults to 'dmv-jnd'.
            strength (float | Tensor): Times the JND, (B,) or one for all.
                Defaults to 1.
            seed (int): Of the noise. Defaults to 0.
        """
        if distortion not in PIXEL_DISTORTIONS:
            raise ValueError('distortion must be one of '
                             f'{PIXEL_DISTORTIONS}, but got {distortion!r}')
        x, e = found.clean, found.jnd
        if isinstance(strength, Tensor):
            strength = per_image(strength, e)
        e = self._within_range(x, e * strength)
        if distortion != 'dmv-jnd':
            keys = image_keys(
                image_ids(data_samples, len(x)), seed, device=x.device)
            noise = control(e, distortion, keys, found.images)
            e = match_power(noise, e, partial(self._within_range, x),
                            found.content)
        return self._add(found, e)

    def replace(self, found: Distorted, images: Tensor) -> Distorted:
        """Other pixels in the place of x + e, e.g. decoded ones.

        Args:
            found (Distorted): Of :meth:`find`, of images of one size.
            images (Tensor): (B, C, H, W), pixels in [0, 255].
        """
        e = (images.float() - self.mean) / self.std - found.clean
        return self._add(found, e)

    def distort(self,
                images: Images,
                data_samples: Optional[list] = None,
                **kwargs) -> Distorted:
        """:meth:`find`, then :meth:`change` with the other arguments."""
        return self.change(
            self.find(images, data_samples), data_samples, **kwargs)

    # ------------------------------------------------------------------ modes
    def forward(self,
                inputs: Images,
                data_samples: Optional[list] = None,
                mode: str = 'tensor'):
        """MMEngine's modes.

        Args:
            inputs (Tensor | Sequence[Tensor]): See :meth:`find`.
            data_samples (list, optional): The data pipeline's.
            mode (str): 'tensor': e; 'loss': the dict of the objective;
                'predict': the data samples with ``dmv_jnd``.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.find(inputs, data_samples).jnd
        raise RuntimeError(f'Invalid mode "{mode}".')

    def loss(self,
             inputs: Images,
             data_samples: Optional[list] = None) -> Dict[str, Tensor]:
        """The objective's dict, see :class:`DMVJNDLoss`."""
        distorted = self.find(inputs, data_samples)
        tolerances = [
            task.loss(distorted.images, reference)
            for task, reference in zip(self.tasks, distorted.references)
        ]
        return self.objective(tolerances, distorted.jnd, distorted.attention,
                              distorted.content)

    def predict(self,
                inputs: Images,
                data_samples: Optional[list] = None) -> list:
        """What the tasks make of the distorted images.

        Returns:
            list: The data samples, see :meth:`describe`.
        """
        with torch.no_grad():
            distorted = self.distort(inputs, data_samples, **self.test_cfg)
            return self.describe(distorted, data_samples)

    @torch.no_grad()
    def describe(self,
                 distorted: Distorted,
                 data_samples: Optional[list] = None) -> list:
        """Write into the data samples what the tasks make of the images.

        Args:
            distorted (Distorted): The images.
            data_samples (list, optional): Defaults to None: new ones.

        Returns:
            list: The data samples, each with ``dmv_jnd``, a dict of ``mse``
            (of e, in pixels squared), ``magnitude`` (N0), ``target`` (N) and
            ``tasks``: for each by name what its ``compare`` says.
        """
        e, attention, content = distorted[2:5]
        measured = dict(
            mse=mean_squared_error(e, content) * self.std**2,
            magnitude=mean_magnitude(e, content),
            target=target_magnitude(attention, self.objective.target_scale,
                                    content))
        tasks = {
            task.name: task.compare(distorted.images, reference)
            for task, reference in zip(self.tasks, distorted.references)
        }
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in e]
        for i, sample in enumerate(data_samples):
            row = {name: value[i] for name, value in measured.items()}
            row['tasks'] = {
                task: {name: value[i] for name, value in result.items()}
                for task, result in tasks.items()
            }
            sample.set_field(row, 'dmv_jnd')
        return data_samples
