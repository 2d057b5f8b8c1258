"""What detectors of two and more stages say, as distributions.

The regions that every stage looks at, and the detections whose masks count,
are those of the clean pass. The stages of a cascade share one answer: each
counts as much as the others, together they count once. Ours.
"""
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmfeatjnd.functional import Distribution
from mmfeatjnd.functional.likelihood import Terms
from .base import Likelihood, _own
from .mmdet_likelihood import (
    PROPOSAL_STD,
    as_input,
    check_dense,
    dense_terms,
    kind_of,
    unknown,
    whole_gradient,
)

_ROI_HEADS = {
    'StandardRoIHead', 'DynamicRoIHead', 'DoubleHeadRoIHead', 'PISARoIHead',
    'MaskScoringRoIHead', 'CascadeRoIHead'
}
_BOX_HEADS = {
    'BBoxHead', 'ConvFCBBoxHead', 'Shared2FCBBoxHead',
    'Shared4Conv1FCBBoxHead', 'DoubleConvFCBBoxHead'
}
_MASK_HEADS = {'FCNMaskHead'}
#: Their features are those of several branches, or there is more to say.
_REFUSED_HOSTS = {'TridentFasterRCNN'}


class Regions(NamedTuple):
    """What the clean pass of a detector of several stages looks at.

    Attributes:
        rois (list[Tensor]): Of every stage (R, 5), image and box of every
            proposal.
        detected (Tensor, optional): (D, 5), of every detection; None without
            masks.
        labels (Tensor, optional): (D,), its class.
        scores (Tensor, optional): (D,), its score.
    """
    rois: List[Tensor]
    detected: Optional[Tensor] = None
    labels: Optional[Tensor] = None
    scores: Optional[Tensor] = None


def check_two_stage(host: nn.Module) -> None:
    """Raise unless all heads of a host are known."""
    if kind_of(host) in _REFUSED_HOSTS or \
            getattr(host, 'rpn_head', None) is None:
        raise unknown(host)
    check_dense(host.rpn_head)
    head = host.roi_head
    if kind_of(head) not in _ROI_HEADS:
        raise unknown(head)
    for part in _stages(head.bbox_head):
        if kind_of(part) not in _BOX_HEADS or \
                getattr(part, 'custom_activation', False) or \
                getattr(part, 'custom_cls_channels', False) or \
                getattr(part.loss_cls, 'use_sigmoid', False):
            raise unknown(part)
        if part.with_reg and getattr(part.bbox_coder, 'stds', None) is None:
            raise unknown(part, 'the boxes')
    if head.with_mask:
        for part in _stages(head.mask_head):
            if kind_of(part) not in _MASK_HEADS:
                raise unknown(part)


def _stages(part: nn.Module) -> List[nn.Module]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def two_stage(host: nn.Module, inputs: Tensor, data_samples: list,
              regions: Optional[Regions]) -> Likelihood:
    """What such a detector says.

    Args:
        host (nn.Module): The detector, with FeatJND or plain.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list): The host's data samples.
        regions (Regions, optional): Those of the clean pass.

    Returns:
        Likelihood: The terms, and the regions.
    """
    features = _own(host, 'extract_feat')(inputs)
    metas = [s.metainfo for s in as_input(data_samples)]
    rpn, head = host.rpn_head, host.roi_head
    with whole_gradient():
        outputs = rpn(features)
    terms = {
        f'rpn_{name}': term
        for name, term in dense_terms(rpn, outputs).items()
    }
    if getattr(host, 'semantic_head', None) is not None:  # Panoptic FPN
        pixels = host.semantic_head(features)['seg_preds']
        terms['pixel'] = Distribution('categorical', pixels)
    if regions is None:
        with torch.no_grad():
            proposals = rpn.predict_by_feat(
                *_detached(outputs), batch_img_metas=metas, rescale=False)
        rois, known = [_as_rois([p.bboxes for p in proposals])], None
    else:
        rois, known = [], regions.rois
    answers = []
    heads = _stages(head.bbox_head)
    for stage, part in enumerate(heads):
        if known is not None:
            rois.append(known[stage])
        found = head._bbox_forward(*_stage(head, stage), features, rois[stage])
        answers.append((found['cls_score'], found['bbox_pred']))
        terms.update(
            _region_terms(part, stage, len(heads), rois[stage], *answers[-1]))
        if known is None and stage + 1 < len(heads):
            with torch.no_grad():
                rois.append(_refined(part, rois[-1], *answers[-1], metas))
    if regions is None:
        regions = Regions(rois)
        if head.with_mask:
            with torch.no_grad():
                regions = Regions(rois, *_detect(head, rois, answers, metas))
    if head.with_mask and len(regions.detected):
        terms.update(_mask_terms(head, features, regions))
    return Likelihood(terms, regions)


def _detached(outputs: Sequence) -> List[List[Tensor]]:
    return [[x.detach() for x in level] for level in outputs]


def _stage(head: nn.Module, stage: int) -> Tuple[int, ...]:
    """The first argument of a cascade's functions."""
    return (stage, ) if isinstance(head.bbox_head, nn.ModuleList) else ()


def _as_rois(boxes: List[Any]) -> Tensor:
    from mmdet.structures.bbox import bbox2roi
    return bbox2roi(boxes)


def _region_terms(head: nn.Module, stage: int, stages: int, rois: Tensor,
                  classes: Tensor, boxes: Optional[Tensor]) -> Terms:
    images = rois[:, 0].long()
    share = classes.new_full((1, 1), 1 / stages, dtype=torch.float32)
    terms = {
        f'cls{stage}':
        Distribution('categorical', classes, images,
                     None if stages == 1 else share)
    }
    if boxes is None:
        return terms
    value = boxes.reshape(len(boxes), boxes.size(1) // 4, 4)
    p = classes.detach().float().softmax(1)
    there = p[:, :-1] if value.size(1) > 1 else 1 - p[:, -1:]
    if there.size(1) != value.size(1):
        raise unknown(head, 'the boxes')
    stds = boxes.new_tensor(head.bbox_coder.stds, dtype=torch.float32)
    weight = there[..., None] * (stds / PROPOSAL_STD).square() / stages
    terms[f'box{stage}'] = Distribution('gaussian', value, images, weight)
    return terms


def _by_image(x: Tensor, rois: Tensor, batch_size: int) -> List[Tensor]:
    """Rows, split by the image of their region."""
    counts = torch.bincount(rois[:, 0].long(), minlength=batch_size)
    return list(x.split(counts.tolist()))


def _refined(head: nn.Module, rois: Tensor, classes: Tensor, boxes: Tensor,
             metas: List[dict]) -> Tensor:
    """What the next stage looks at."""
    from mmdet.structures.bbox import get_box_tensor
    label = classes[:, :-1].argmax(1)
    rows = (_by_image(x, rois, len(metas)) for x in (rois, label, boxes))
    found = []
    for own, name, delta, meta in zip(*rows, metas):
        if len(own):
            box = head.regress_by_class(own[:, 1:], name, delta, meta)
            found.append(torch.cat([own[:, :1], get_box_tensor(box)], 1))
    return torch.cat(found) if found else rois


def _detect(head: nn.Module, rois: List[Tensor], answers: List[tuple],
            metas: List[dict]) -> Tuple[Tensor, Tensor, Tensor]:
    """(D, 5) detections, their classes and scores."""
    last = _stages(head.bbox_head)[-1]
    # the scores of a cascade are the mean of its stages, as in the host
    classes = sum(cls for cls, _ in answers) / len(answers)
    boxes = answers[-1][1]
    split = [_by_image(x, rois[-1], len(metas)) for x in (rois[-1], classes)]
    found = last.predict_by_feat(
        *split,
        [None] * len(metas) if boxes is None else _by_image(
            boxes, rois[-1], len(metas)),
        batch_img_metas=metas,
        rcnn_test_cfg=head.test_cfg,
        rescale=False)
    return (_as_rois([d.bboxes for d in found]),
            torch.cat([d.labels for d in found]),
            torch.cat([d.scores for d in found]))


def _mask_terms(head: nn.Module, features: Sequence[Tensor],
                regions: Regions) -> Terms:
    """A mask for every detection, of the class that was detected."""
    images = regions.detected[:, 0].long()
    heads = _stages(head.mask_head)
    weight = regions.scores.float()[:, None, None] / len(heads)
    terms = {}
    for stage in range(len(heads)):
        value = head._mask_forward(*_stage(head, stage), features,
                                   regions.detected)['mask_preds']
        rows = torch.arange(len(value), device=value.device)
        value = value[rows, regions.labels if value.size(1) > 1 else 0]
        terms[f'mask{stage}'] = Distribution('bernoulli', value, images,
                                             weight)
    return terms
