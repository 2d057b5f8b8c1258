"""The host's own loss as discrepancy: against annotations or predictions."""
from typing import List, NamedTuple, Optional

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from mmfeatjnd.compat import host_library
from mmfeatjnd.registry import MODELS
from .base_discrepancy import (
    BaseDiscrepancy,
    host_logits,
    run_host,
    total_loss,
)


class Reference(NamedTuple):
    """The targets of the host's loss, and its value in the clean pass."""
    data_samples: list
    loss: Tensor
    seed: int


def host_loss(host: nn.Module,
              inputs: Tensor,
              targets: list,
              seed: int = 0) -> Tensor:
    """The own loss of a host, with FeatJND or plain; a scalar.

    Heads that sample proposals or queries draw from PyTorch's global
    generator. With the same seed they draw alike, so that two passes differ
    by their features only; the global state is put back.
    """
    devices = [inputs.device] if inputs.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.random.manual_seed(seed)
        return total_loss(run_host(host, 'loss', inputs, targets))


@MODELS.register_module()
class Annotation(BaseDiscrepancy):
    r"""Relative rise of the host's own loss against the annotations.

    .. math:: D = \frac{L(f + \delta) - L(f)}{L(f)}

    Works for every host that can be trained. Ours.
    """

    _seed = 0  # of the samplers' draws, another in each step

    def targets(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        """The data samples that the host's loss is computed against."""
        if not data_samples:
            raise ValueError(f'{type(self).__name__} needs data samples')
        return data_samples

    def reference(self, host: nn.Module, inputs: Tensor,
                  data_samples: Optional[list]) -> Reference:
        targets = self.targets(host, inputs, data_samples)
        self._seed += 1
        loss = host_loss(host, inputs, targets, self._seed)
        return Reference(targets, loss, self._seed)

    def forward(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list],
                reference: Reference) -> Tensor:
        loss = host_loss(host, inputs, reference.data_samples, reference.seed)
        # a host that fits its targets perfectly has no scale of its own
        return (loss - reference.loss) / reference.loss.clamp_min(1e-3)


@MODELS.register_module()
class PseudoGroundTruth(Annotation):
    """Relative rise of the host's own loss against its clean predictions.

    The clean predictions become the ground truth, so no annotations are used.
    Any detector with boxes (and masks), classifiers and segmentors. An image
    without predictions is an image without objects, as in the host's
    training. Ours.

    Args:
        score_thr (float): Detections below are no objects. Defaults to 0.3.
    """

    def __init__(self, score_thr: float = 0.3) -> None:
        super().__init__()
        self.score_thr = score_thr

    @torch.no_grad()
    def targets(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        if host_library(host) == 'mmdet':
            return self._detections(host, inputs, data_samples)
        labels = host_logits(host, inputs)
        if labels.dim() == 2:
            return _with_labels(data_samples, labels.argmax(1))
        labels = F.interpolate(
            labels.float(), inputs.shape[-2:], mode='bilinear')
        return _with_maps(data_samples, labels.argmax(1))

    def _detections(self, host: nn.Module, inputs: Tensor,
                    data_samples: list) -> list:
        views = []
        for sample in data_samples:
            meta = dict(sample.metainfo)
            # predictions in the coordinates of the input, not of the file
            meta.update(ori_shape=meta['img_shape'], scale_factor=(1.0, 1.0))
            views.append(type(sample)(metainfo=meta))
        results = run_host(host, 'predict', inputs, views)
        size = tuple(inputs.shape[-2:])
        return [self._to_ground_truth(r, host, size) for r in results]

    def _to_ground_truth(self, result, host: nn.Module, size):
        pred = result.get('pred_instances', None)
        if pred is None:
            raise TypeError(
                f'{type(host).__name__} predicts no instances that could be '
                'its ground truth. With FeatJND, use discrepancy=dict(type='
                "'mmfeatjnd.Annotation').")
        if 'masks' in pred and len(pred) and not pred.bboxes.any():
            # SOLO and its like find masks only and leave the boxes at zero
            from mmdet.structures.mask import mask2bbox
            pred.bboxes = mask2bbox(torch.as_tensor(pred.masks).bool())
        boxes = pred.bboxes
        extent = boxes[:, 2:] - boxes[:, :2]
        pred = pred[(pred.scores >= self.score_thr) & (extent > 1).all(1)]
        truth = InstanceData(
            bboxes=pred.bboxes, labels=pred.labels, scores=pred.scores)
        if 'masks' in pred:
            truth.masks = _bitmap_masks(pred.masks, size)
        sample = type(result)(metainfo=result.metainfo)
        sample.gt_instances = truth
        return sample


def _bitmap_masks(masks: Tensor, size):
    """(N, h, w) masks, padded to the input's (H, W), as MMDetection's."""
    from mmdet.structures.mask import BitmapMasks
    masks = torch.as_tensor(masks).to(torch.uint8)
    pad = (0, size[1] - masks.size(2), 0, size[0] - masks.size(1))
    return BitmapMasks(F.pad(masks, pad).cpu().numpy(), *size)


def _with_labels(data_samples: Optional[list], labels: Tensor) -> List:
    from mmpretrain.structures import DataSample
    samples = data_samples or [DataSample() for _ in labels]
    return [
        DataSample(metainfo=s.metainfo).set_gt_label(label)
        for s, label in zip(samples, labels)
    ]


def _with_maps(data_samples: list, maps: Tensor) -> List:
    targets = []
    for sample, label in zip(data_samples, maps):
        target = type(sample)(metainfo=sample.metainfo)
        target.gt_sem_seg = PixelData(data=label[None])
        targets.append(target)
    return targets
