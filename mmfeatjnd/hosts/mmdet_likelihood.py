"""What detectors say, as distributions.

A class is categorical (softmax) or yes or no (sigmoid), objectness,
centerness and the pixels of a mask are yes or no, a box is Gaussian and
counts as far as there is an object. How wide a box's Gaussian is, and that
all terms are summed, is ours: a standard deviation of 20 % of an anchor (or of
a box) in dense heads, of 5 % of a proposal in heads of regions and queries.
"""
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmfeatjnd.functional import Distribution, Terms
from .base import Likelihood, NoLikelihood, _own, one_pass

#: Standard deviation of a box, as a share of its anchor and its proposal.
ANCHOR_STD = 0.2
PROPOSAL_STD = 0.05


class Regions(NamedTuple):
    """What the clean pass of a two-stage detector looks at.

    Attributes:
        rois (Tensor): (R, 5), image and box of every proposal.
        detected (Tensor): (D, 5), of every detection.
        labels (Tensor): (D,), its class.
        scores (Tensor): (D,), its score.
    """
    rois: Tensor
    detected: Tensor
    labels: Tensor
    scores: Tensor


def likelihood(host: nn.Module, inputs: Tensor, data_samples: Optional[list],
               proposals: Optional[Regions]) -> Likelihood:
    """What a detector says.

    Args:
        host (nn.Module): A detector, with FeatJND or plain.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.
        proposals (Regions, optional): Those of the clean pass.

    Returns:
        Likelihood: The terms, and what they are over.

    Raises:
        NoLikelihood: What the outputs of this host's heads mean is not
            written down here.
    """
    with one_pass(host):
        if _is_a(host, 'DetectionTransformer'):
            answers = _own(host, '_forward')(inputs, data_samples)
            return Likelihood(_query_terms(host.bbox_head, answers))
        features = _own(host, 'extract_feat')(inputs)
        if getattr(host, 'roi_head', None) is not None:
            return _two_stage(host, features, _as_input(data_samples),
                              proposals)
        head = getattr(host, 'bbox_head', None)
        if head is None:
            raise _unknown(host)
        return Likelihood(_dense_terms(head, head(features)))


def _is_a(x: Any, *names: str) -> bool:
    """By name: the lines of host libraries have not all the same classes."""
    return any(c.__name__ in names for c in type(x).__mro__)


def _unknown(module: nn.Module) -> NoLikelihood:
    return NoLikelihood(
        f'what the outputs of {type(module).__name__} mean, as '
        'distributions, is not known')


def _as_input(data_samples: list) -> list:
    """Data samples in the coordinates of the input, not of the file."""
    views = []
    for sample in data_samples:
        meta = dict(sample.metainfo)
        meta.update(ori_shape=meta['img_shape'], scale_factor=(1.0, 1.0))
        views.append(type(sample)(metainfo=meta))
    return views


# ------------------------------------------------------------- dense heads
def _dense_terms(head: nn.Module, outputs: Sequence) -> Terms:
    """Terms of a head that answers at every place of every level."""
    if _is_a(head, 'YOLOXHead'):
        classes, boxes, objects = outputs
        return _of_levels(_yolox_level, zip(classes, boxes, objects))
    if _is_a(head, 'AnchorHead', 'AnchorFreeHead', 'RTMDetHead') and \
            len(outputs) in (2, 3):
        classes, boxes, *third = outputs
        if not all(isinstance(x, Tensor) for x in (*classes, *boxes)):
            raise _unknown(head)
        levels = zip(classes, boxes, *third) if third else zip(classes, boxes)
        return _of_levels(lambda *x: _anchor_level(head, *x), levels)
    raise _unknown(head)


def _of_levels(terms_of, levels) -> Terms:
    return {
        f'{name}{i}': term
        for i, outputs in enumerate(levels)
        for name, term in terms_of(*outputs).items()
    }


def _yolox_level(classes: Tensor, box: Tensor, objects: Tensor) -> Terms:
    there = objects.detach().sigmoid()
    return dict(
        object=Distribution('bernoulli', objects),
        cls=Distribution('bernoulli', classes, weight=there),
        box=Distribution('gaussian', box, weight=there / ANCHOR_STD**2))


def _anchor_level(head: nn.Module,
                  classes: Tensor,
                  box: Tensor,
                  third: Optional[Tensor] = None) -> Terms:
    """One level of anchors or points: (B, A * K, H, W) classes, (B, A * 4 *
    n, H, W) boxes and (B, A, H, W) centerness."""
    b, _, h, w = classes.shape
    sigmoid = getattr(head, 'use_sigmoid_cls', True)
    anchors = getattr(head, 'num_base_priors', None) or 1
    if not isinstance(anchors, int):
        anchors = 1
    per_anchor = classes.reshape(b, anchors, -1, h, w).transpose(1, 2)
    clean = per_anchor.detach().float()
    if sigmoid:
        cls = Distribution('bernoulli', per_anchor)
        there = clean.sigmoid().amax(1)
    else:
        cls = Distribution('categorical', per_anchor)
        there = 1 - clean.softmax(1)[:, -1]
    terms = dict(cls=cls)
    if third is not None:
        terms['center'] = Distribution('bernoulli', third)
    terms['box'] = _box_term(head, box, there)
    return terms


def _box_term(head: nn.Module, box: Tensor, there: Tensor) -> Distribution:
    b, _, h, w = box.shape
    anchors = there.size(1)
    sides = getattr(head, 'reg_max', None)
    if isinstance(sides, int) and box.size(1) == anchors * 4 * (sides + 1):
        # every side is a softmax over distances
        value = box.view(b, anchors * 4, sides + 1, h, w).transpose(1, 2)
        weight = there.repeat_interleave(4, 1)[:, None]
        return Distribution('categorical', value, weight=weight)
    if box.size(1) != 4 * anchors:
        raise _unknown(head)
    value = box.view(b, anchors, 4, h, w).transpose(1, 2)
    stds = getattr(getattr(head, 'bbox_coder', None), 'stds', None)
    if stds is not None:
        std = box.new_tensor(stds).view(1, 4, 1, 1, 1).reciprocal()
        std = ANCHOR_STD * std
    elif getattr(head, 'num_anchors', None):
        raise _unknown(head)
    else:  # distances to the sides: of the box's own size
        sizes = value.detach().float().unflatten(1, (2, 2)).abs().sum(1)
        std = ANCHOR_STD * sizes.repeat(1, 2, 1, 1, 1).clamp_min(1e-3)
    return Distribution(
        'gaussian', value, weight=there[:, None] / std.square())


# ----------------------------------------------------------------- queries
def _query_terms(head: nn.Module, answers: Any) -> Terms:
    """Terms of a head that answers for every query of a transformer, in the
    last layer of its decoder."""
    classes, boxes = (_last(x) for x in answers[:2])
    if classes is None or boxes is None or boxes.dim() != 3 or \
            boxes.size(2) != 4:
        raise _unknown(head)
    value = classes.transpose(1, 2)  # (B, K, Q)
    clean = value.detach().float()
    if getattr(head.loss_cls, 'use_sigmoid', False):
        cls = Distribution('bernoulli', value)
        there = clean.sigmoid().amax(1)
    else:
        cls = Distribution('categorical', value)
        there = 1 - clean.softmax(1)[:, -1]
    # center and size, of which the size is the unit
    std = PROPOSAL_STD * boxes.detach()[..., 2:].float().repeat(1, 1, 2)
    weight = there[..., None] / std.clamp_min(1e-3).square()
    return dict(cls=cls, box=Distribution('gaussian', boxes, weight=weight))


def _last(x: Any) -> Optional[Tensor]:
    x = x[-1] if isinstance(x, (list, tuple, Tensor)) and len(x) else None
    return x if isinstance(x, Tensor) and x.dim() == 3 else None


# --------------------------------------------------------------- two stages
def _two_stage(host: nn.Module, features: Sequence[Tensor], samples: list,
               regions: Optional[Regions]) -> Likelihood:
    head = host.roi_head
    if not _is_a(head, 'StandardRoIHead') or _is_a(
            head, 'PointRendRoIHead', 'GridRoIHead', 'DoubleHeadRoIHead',
            'PISARoIHead', 'MaskScoringRoIHead'):
        raise _unknown(head)
    rpn = host.rpn_head
    outputs = rpn(features)
    terms = _of_levels(lambda *x: _anchor_level(rpn, *x), zip(*outputs))
    terms = {f'rpn_{name}': term for name, term in terms.items()}
    if regions is None:
        with torch.no_grad():
            regions = _regions(head, features, samples, rpn, outputs)
    terms.update(_region_terms(head, features, regions))
    if getattr(head, 'with_mask', False) and len(regions.detected):
        terms['mask'] = _mask_term(head, features, regions)
    return Likelihood(terms, regions)


def _regions(head: nn.Module, features: Sequence[Tensor], samples: list,
             rpn: nn.Module, outputs: Tuple[List[Tensor], ...]) -> Regions:
    metas = [s.metainfo for s in samples]
    proposals = rpn.predict_by_feat(
        *outputs, batch_img_metas=metas, rescale=False)
    found = head.predict_bbox(
        features, metas, proposals, head.test_cfg, rescale=False)
    return Regions(
        _as_rois([p.bboxes for p in proposals]),
        _as_rois([d.bboxes for d in found]),
        torch.cat([d.labels for d in found]),
        torch.cat([d.scores for d in found]))


def _as_rois(boxes: List[Any]) -> Tensor:
    from mmdet.structures.bbox import bbox2roi
    return bbox2roi(boxes)


def _region_terms(head: nn.Module, features: Sequence[Tensor],
                  regions: Regions) -> Terms:
    results = head._bbox_forward(features, regions.rois)
    classes, boxes = results['cls_score'], results['bbox_pred']
    images = regions.rois[:, 0].long()
    if not isinstance(classes, Tensor) or boxes is None or not getattr(
            head.bbox_head, 'loss_cls', None):
        raise _unknown(head)
    if getattr(head.bbox_head.loss_cls, 'use_sigmoid', False) or getattr(
            head.bbox_head, 'custom_cls_channels', False):
        raise _unknown(head)
    terms = dict(cls=Distribution('categorical', classes, images))
    value = boxes.view(len(boxes), -1, 4)
    p = classes.detach().float().softmax(1)
    there = p[:, :-1] if value.size(1) > 1 else 1 - p[:, -1:]
    if there.size(1) != value.size(1):
        raise _unknown(head)
    stds = boxes.new_tensor(head.bbox_head.bbox_coder.stds)
    weight = there[..., None] * (stds / PROPOSAL_STD).square()
    terms['box'] = Distribution('gaussian', value, images, weight)
    return terms


def _mask_term(head: nn.Module, features: Sequence[Tensor],
               regions: Regions) -> Distribution:
    value = head._mask_forward(features, regions.detected)['mask_preds']
    row = torch.arange(len(value), device=value.device)
    value = value[row, regions.labels if value.size(1) > 1 else 0]
    return Distribution('bernoulli', value,
                        regions.detected[:, 0].long(),
                        regions.scores.float()[:, None, None])
