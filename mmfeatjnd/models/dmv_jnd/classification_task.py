"""A classifier and its class activation map."""
from typing import Dict, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeatjnd.functional.dmv_jnd import (
    agreement,
    class_activation_map,
    normalize_attention,
)
from mmfeatjnd.functional.images import resize_images
from mmfeatjnd.registry import MODELS
from .base_task import BaseTask, TaskReference
from .cam_neck import CAMNeck


@MODELS.register_module()
class ClassificationTask(BaseTask):
    """A classifier of MMPretrain: its label, and the CAM of that label.

    The classifier ends in global average pooling and a linear layer, as
    MMPretrain's ResNet and DenseNet do; others end so with a
    :class:`CAMNeck`.

    Args:
        config (str | dict): The classifier's config, a file or its content.
        checkpoint (str, optional): Its weights. Defaults to None: what the
            config initializes it with.
        input_size (int | tuple[int, int], optional): Height and width that
            images are resized to: what the classifier was trained on, if its
            own pipeline resizes. Defaults to None: as they are.
        name (str, optional): Name of the task in metrics. Defaults to None:
            that of the config file, or of the classifier's class.

    Raises:
        ValueError: The model has no class activation map.
    """

    def __init__(self,
                 config: Union[str, dict],
                 checkpoint: Optional[str] = None,
                 input_size: Union[int, Tuple[int, int], None] = None,
                 name: Optional[str] = None) -> None:
        super().__init__(config, checkpoint, name)
        if isinstance(input_size, int):
            input_size = (input_size, input_size)
        self.input_size = input_size
        neck = getattr(self.host, 'neck', None)
        pooled = (
            isinstance(neck, CAMNeck)
            or type(neck).__name__ == 'GlobalAveragePooling')
        fc = getattr(getattr(self.host, 'head', None), 'fc', None)
        if not pooled or not isinstance(fc, nn.Linear):
            raise ValueError(
                f'ClassificationTask {self.name!r}: a class activation map '
                'needs global average pooling and a linear layer, but the '
                f"neck is {type(neck).__name__} and the head's `fc` "
                f'{type(fc).__name__}. Train the classifier with neck=dict('
                "type='mmfeatjnd.CAMNeck', ...) and head=dict(type="
                "'LinearClsHead', ...).")

    @property
    def num_classes(self) -> int:
        """Number of classes of the classifier."""
        return self.host.head.fc.out_features

    def _forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """The logits, (B, classes), and what is pooled, (B, K, h, w)."""
        if self.input_size is not None:
            images = resize_images(images, self.input_size)
        host = self.host
        inputs = host.data_preprocessor(dict(inputs=images), False)['inputs']
        feature = host.backbone(inputs)
        feature = (
            host.neck.feature_map(feature)
            if isinstance(host.neck, CAMNeck) else feature[-1])
        return host.head((feature.mean((2, 3)), )), feature

    def reference(self, images: Tensor,
                  data_samples: Optional[list] = None) -> TaskReference:
        """The labels, (B,), and the CAM of them stretched to [0, 1]."""
        with torch.no_grad():
            logits, feature = self._forward(images)
            labels = logits.argmax(1)
            cam = class_activation_map(feature.float(),
                                       self.host.head.fc.weight, labels)
            return TaskReference(labels, normalize_attention(cam))

    def loss(self, images: Tensor, reference: TaskReference) -> Tensor:
        """Eq. (8) of DMV-JND: cross-entropy against the labels."""
        return F.cross_entropy(self._forward(images)[0], reference.labels)

    def compare(self, images: Tensor,
                reference: TaskReference) -> Dict[str, Tensor]:
        """``agreement``, ``label`` and ``reference_label``, (B,) each."""
        label = self._forward(images)[0].argmax(1)
        return dict(
            agreement=agreement(label, reference.labels),
            label=label,
            reference_label=reference.labels)
