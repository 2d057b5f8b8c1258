"""Detectors of MMDetection."""
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Tuple

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from .base import HostAdapter, Likelihood, run_host
from .mmdet_likelihood import likelihood, reader_of


class DetectorAdapter(HostAdapter):
    """What MMDetection does in its own way."""

    def predict(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        """See :meth:`HostAdapter.predict`."""
        views = []
        for sample in data_samples:
            meta = dict(sample.metainfo)
            # predictions in the coordinates of the input, not of the file
            meta.update(ori_shape=meta['img_shape'], scale_factor=(1.0, 1.0))
            views.append(type(sample)(metainfo=meta))
        return run_host(host, 'predict', inputs, views)

    def likelihood(self,
                   host: nn.Module,
                   inputs: Tensor,
                   data_samples: Optional[list],
                   proposals: Any = None) -> Likelihood:
        """See :meth:`HostAdapter.likelihood` and
        :mod:`mmfeatjnd.hosts.mmdet_likelihood`."""
        return likelihood(host, inputs, data_samples, proposals)

    def check_likelihood(self, host: nn.Module) -> None:
        """See :meth:`HostAdapter.check_likelihood`."""
        reader_of(host)

    def boxes(self, host: nn.Module, inputs: Tensor,
              data_samples: Optional[list]) -> List[Tensor]:
        """See :meth:`HostAdapter.boxes`; detections of a score of at least
        0.3."""
        targets = self.own_targets(host, inputs, data_samples, 0.3)
        height, width = inputs.shape[-2:]
        return [
            t.gt_instances.bboxes.float() /
            inputs.new_tensor([width, height, width, height]) for t in targets
        ]

    def own_targets(self, host: nn.Module, inputs: Tensor,
                    data_samples: Optional[list], score_thr: float) -> List:
        """See :meth:`HostAdapter.own_targets`. Boxes without extent are
        left out, as in the host's training."""
        if any(c.__name__ == 'BoxInst' for c in type(host).__mro__):
            raise TypeError(
                f'{type(host).__name__} learns from colours that its data '
                'preprocessor compares, so its own detections are no ground '
                'truth for it. With FeatJND, use discrepancy=dict(type='
                "'mmfeatjnd.Annotation').")
        size = tuple(inputs.shape[-2:])
        with _watching_semantics(host) as seen:
            results = self.predict(host, inputs, data_samples)
        targets = [_to_ground_truth(r, host, size, score_thr)
                   for r in results]
        if seen:  # of HTC and its like
            labels = F.interpolate(seen[-1].argmax(1, keepdim=True).float(),
                                   size, mode='nearest')
            for target, label in zip(targets, labels):
                target.gt_sem_seg = PixelData(sem_seg=label.long())
        return targets


@contextmanager
def _watching_semantics(host: nn.Module) -> Iterator[List[Tensor]]:
    """The logits of a semantic branch, (B, K, h, w), if there is one."""
    seen: List[Tensor] = []
    head = getattr(getattr(host, 'roi_head', None), 'semantic_head', None)
    if head is None:
        yield seen
        return
    handle = head.register_forward_hook(
        lambda module, args, output: seen.append(output[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


def _to_ground_truth(result: Any, host: nn.Module, size: Tuple[int, int],
                     score_thr: float) -> Any:
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
    pred = pred[(pred.scores >= score_thr) & (extent > 1).all(1)]
    truth = InstanceData(
        bboxes=pred.bboxes, labels=pred.labels, scores=pred.scores)
    if 'masks' in pred:
        truth.masks = _bitmap_masks(pred.masks, size)
    sample = type(result)(metainfo=result.metainfo)
    sample.gt_instances = truth
    return sample


def _bitmap_masks(masks: Tensor, size: Tuple[int, int]):
    """(N, h, w) masks, padded to the input's (H, W), as MMDetection's."""
    from mmdet.structures.mask import BitmapMasks
    masks = torch.as_tensor(masks).to(torch.uint8)
    pad = (0, size[1] - masks.size(2), 0, size[0] - masks.size(1))
    return BitmapMasks(F.pad(masks, pad).cpu().numpy(), *size)
