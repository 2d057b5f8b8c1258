"""A detector and the objectness of its own detections."""
from typing import Dict, NamedTuple, Optional, Union

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmfeatjnd.compat import host_library
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models.discrepancies import PseudoGroundTruth
from mmfeatjnd.models.step_counter import StepCounter
from mmfeatjnd.registry import MODELS
from .base_task import BaseTask, TaskReference


def objectness_map(scores: Tensor, covers: Tensor) -> Tensor:
    """The largest score of what covers a pixel.

    Args:
        scores (Tensor): Scores of the detections, (N,), in [0, 1].
        covers (Tensor): The pixels of each detection, (N, h, w), bool.

    Returns:
        Tensor: (1, h, w); 0 where nothing covers the pixel.
    """
    if not len(scores):
        return scores.new_zeros(1, *covers.shape[1:])
    scores, order = scores.sort(descending=True)
    # the first that covers, one byte a pixel and detection
    best = covers[order].byte().argmax(0)
    return (scores[best] * covers.any(0))[None]


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels whose centres lie in boxes.

    Args:
        boxes (Tensor): Left, top, right and bottom, (N, 4), in pixels.
        height (int): Height h of the image.
        width (int): Width w of the image.

    Returns:
        Tensor: (N, h, w), bool.
    """
    left, top, right, bottom = boxes.unbind(1)

    def within(low: Tensor, high: Tensor, size: int) -> Tensor:
        centre = torch.arange(size, device=boxes.device) + 0.5
        return (centre >= low[:, None]) & (centre < high[:, None])

    return (within(top, bottom, height)[:, :, None]
            & within(left, right, width)[:, None])


def detection_agreement(detections: InstanceData,
                        reference: InstanceData,
                        iou_thr: float = 0.5) -> Tensor:
    r"""F-score of the detections on two versions of an image, 2 m / (n + n').

    A hit is a pair of the same label with boxes that overlap; m is how many
    of either side have a hit, of the two numbers the smaller one. This is
    the number of one-to-one matches unless hits form a chain, which
    non-maximum suppression makes rare.

    Args:
        detections (InstanceData): ``bboxes``, (n, 4), and ``labels``, (n,).
        reference (InstanceData): The same of n' detections.
        iou_thr (float): The least IoU of a hit. Defaults to 0.5.

    Returns:
        Tensor: Scalar in [0, 1]; 1 where both are empty.
    """
    from mmdet.structures.bbox import bbox_overlaps
    total = len(detections) + len(reference)
    if not total:
        return detections.bboxes.new_ones(())
    hit = bbox_overlaps(detections.bboxes, reference.bboxes) >= iou_thr
    hit &= detections.labels[:, None] == reference.labels
    matches = torch.minimum(hit.any(1).sum(), hit.any(0).sum())
    return 2 * matches / total


class DetectionLabels(NamedTuple):
    """What a detector finds on clean images.

    Attributes:
        data_samples (list): Data samples of MMDetection, with
            ``gt_instances`` (boxes, labels, scores, and masks if the detector
            has them) in the coordinates of the images.
        seed (int): Seed of the draws of the samplers in the loss.
    """
    data_samples: list
    seed: int


@MODELS.register_module()
class DetectionTask(BaseTask):
    """A detector of MMDetection: its detections, and their objectness. Ours.

    Any detector that predicts instances and can be trained, with boxes only
    or with masks as well. Annotations are not used, and the user's data
    samples are not changed.

    Args:
        config (str | dict): The detector's config, a file or its content.
        checkpoint (str, optional): Its weights. Defaults to None: what the
            config initializes it with.
        score_thr (float): Detections below are none. Defaults to 0.3.
        iou_thr (float): The least IoU of boxes of the same label that agree.
            Defaults to 0.5.
        attend_to (str): 'masks': a detection covers the pixels of its mask,
            those of its box if the detector has no masks; 'boxes': always
            those of its box. Defaults to 'masks'.
        loss_weight (float): Factor of the loss, to balance it against other
            tasks. Defaults to 1.
        name (str, optional): Name of the task in metrics. Defaults to None:
            that of the config file, or of the detector's class.

    Raises:
        TypeError: The model is not of MMDetection; or, when it runs,
            predicts no instances.
        ValueError: Another ``attend_to``.
    """

    def __init__(self,
                 config: Union[str, dict],
                 checkpoint: Optional[str] = None,
                 score_thr: float = 0.3,
                 iou_thr: float = 0.5,
                 attend_to: str = 'masks',
                 loss_weight: float = 1.0,
                 name: Optional[str] = None) -> None:
        super().__init__(config, checkpoint, name)
        if host_library(self.host) != 'mmdet':
            raise TypeError(
                f'DetectionTask {self.name!r}: needs a detector of '
                f'MMDetection, but the model is {type(self.host).__name__}. '
                'For a classifier use mmfeatjnd.ClassificationTask.')
        if attend_to not in ('masks', 'boxes'):
            raise ValueError(f'DetectionTask {self.name!r}: attend_to must be '
                             f"'masks' or 'boxes', but got {attend_to!r}")
        self.iou_thr = iou_thr
        self.attend_to = attend_to
        self.loss_weight = loss_weight
        self.labeller = PseudoGroundTruth(score_thr)
        self.steps = StepCounter()

    def _preprocess(self, images: Tensor, data_samples: list) -> dict:
        """What the data preprocessor makes of the images: ``inputs``, and
        other ``data_samples`` that know how the images were padded."""
        data = dict(inputs=list(images), data_samples=data_samples)
        return self.host.data_preprocessor(data, False)

    def _detect(self, images: Tensor, data_samples: Optional[list]) -> list:
        """Data samples with the detections as ground truth."""
        from mmdet.structures import DetDataSample
        if data_samples is None:
            data_samples = [DetDataSample() for _ in images]
        if len(data_samples) != len(images):
            raise ValueError(
                f'DetectionTask {self.name!r}: got {len(images)} images and '
                f'{len(data_samples)} data samples')
        # The user's may be another library's, or have other images' sizes.
        views = [
            DetDataSample(
                metainfo=dict(
                    sample.metainfo, img_shape=tuple(image.shape[-2:])))
            for sample, image in zip(data_samples, images)
        ]
        return self.labeller.targets(self.host,
                                     **self._preprocess(images, views))

    def _attention(self, truth: InstanceData, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.attend_to == 'masks' and 'masks' in truth:
            covers = torch.as_tensor(
                truth.masks.masks[:, :height, :width],
                device=image.device).bool()
        else:
            covers = box_masks(truth.bboxes, height, width)
        return objectness_map(truth.scores, covers)

    @torch.no_grad()
    def reference(self,
                  images: Tensor,
                  data_samples: Optional[list] = None) -> TaskReference:
        """The detections, and the objectness of every pixel.

        A score is in [0, 1] as it is, and the map is not stretched as a
        class activation map must be: a doubtful detection attracts less than
        a sure one, also where it is the only one, and an image without
        detections has room for the largest JND.

        Args:
            images (Tensor): (B, C, H, W).
            data_samples (list, optional): The data pipeline's; only what the
                detector reads of their metainfo matters, such as the text of
                a grounded one. Defaults to None.

        Returns:
            TaskReference: :class:`DetectionLabels`, and (B, 1, H, W): the
            largest score of a detection that covers the pixel, 0 where there
            is none.
        """
        labels = self._detect(images, data_samples)
        attention = torch.stack([
            self._attention(sample.gt_instances, image)
            for sample, image in zip(labels, images)
        ])
        seed = self.steps.next_seed()
        return TaskReference(DetectionLabels(labels, seed), attention)

    def loss(self, images: Tensor, reference: TaskReference) -> Tensor:
        """The detector's own loss against its detections on the clean
        images, times ``loss_weight``; ours, for eq. (8) of DMV-JND.

        As the paper's cross-entropy it is taken as it is. It is not 0 on the
        clean images, but its rise relative to them would have no scale where
        nothing is detected and the clean loss is almost 0.
        """
        truth, seed = reference.labels
        data = self._preprocess(images, truth)
        return self.loss_weight * adapter_of(self.host).loss(
            self.host, data['inputs'], data['data_samples'], seed)

    @torch.no_grad()
    def compare(self, images: Tensor,
                reference: TaskReference) -> Dict[str, Tensor]:
        """``agreement``, (B,): see :func:`detection_agreement`."""
        clean = reference.labels.data_samples
        return dict(
            agreement=torch.stack([
                detection_agreement(sample.gt_instances, truth.gt_instances,
                                    self.iou_thr)
                for sample, truth in zip(self._detect(images, clean), clean)
            ]))
