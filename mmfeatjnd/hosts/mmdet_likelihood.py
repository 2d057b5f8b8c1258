"""What detectors say, as distributions.

A class is categorical (softmax) or yes or no (sigmoid), objectness,
centerness and the pixels of a mask are yes or no, a box is Gaussian. What a
head learns of objects only (boxes, masks, centerness) counts as far as there
is an object. How wide a box's Gaussian is, and that all terms are summed, is
ours: a standard deviation of 20 % of an anchor (a cell in YOLOX, which has no
anchors, and the box itself in other heads without) in dense heads, of 5 % of a
proposal in heads of regions and queries.

Which heads are known is said by the name of their class in MMDetection, here
and in :mod:`mmfeatjnd.hosts.mmdet_regions`. Everything else is refused: the
same shapes can mean something else, as TOOD's scores, which are no logits.
"""
import sys
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmfeatjnd.functional import Distribution
from mmfeatjnd.functional.likelihood import Terms
from .base import Likelihood, NoLikelihood, _own, one_pass

#: Standard deviation of a box, as a share of its anchor and its proposal.
ANCHOR_STD = 0.2
PROPOSAL_STD = 0.05
#: Least size of a query's box, as a share of the image: smaller ones are as
#: certain as this.
SMALLEST_BOX = 0.01


def likelihood(host: nn.Module, inputs: Tensor, data_samples: Optional[list],
               proposals: Any) -> Likelihood:
    """What a detector says.

    Args:
        host (nn.Module): A detector, with FeatJND or plain.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.
        proposals (Any): Those of the clean pass, or None.

    Returns:
        Likelihood: The terms, and what they are over.

    Raises:
        NoLikelihood: What the outputs of this host's heads mean is not
            written down here. Raised before the host runs where its classes
            say so.
    """
    read = reader_of(host)
    with one_pass(host):
        return read(host, inputs, data_samples, proposals)


def reader_of(host: nn.Module) -> Callable:
    """What reads a host's answer.

    Raises:
        NoLikelihood: The classes of its heads say that it is not known.
    """
    from .mmdet_regions import check_two_stage, two_stage
    if kind_of(host) in _QUERY_HOSTS:
        return _queries
    if getattr(host, 'panoptic_head', None) is not None:
        if kind_of(host.panoptic_head) not in _SET_HEADS:
            raise unknown(host.panoptic_head)
        return _mask_set
    if getattr(host, 'roi_head', None) is not None:
        check_two_stage(host)
        return two_stage
    if getattr(host, 'bbox_head', None) is not None and \
            getattr(host, 'mask_head', None) is None:
        check_dense(host.bbox_head)
        return _one_stage
    raise unknown(host)


def kind_of(module: Any) -> str:
    """The class of MMDetection that a module is or descends from."""
    for cls in type(module).__mro__:
        if cls.__module__.partition('.')[0] == 'mmdet':
            return cls.__name__
    return type(module).__name__


def unknown(module: nn.Module, what: str = 'the outputs') -> NoLikelihood:
    """The error of a module about which nothing is written down."""
    return NoLikelihood(
        f'what {what} of {type(module).__name__} mean, as distributions, is '
        'not known')


class _HostCalls(TorchFunctionMode):
    """Takes the place of functions of PyTorch where MMDetection calls them,
    and nobody else: FeatJND's operations may run in the same pass."""

    def __init__(self, instead: Dict[Callable, Callable]) -> None:
        super().__init__()
        self.instead = instead

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.instead:
            caller = sys._getframe(1).f_globals.get('__name__', '')
            if caller.partition('.')[0] == 'mmdet':
                func = self.instead[func]
        return func(*args, **kwargs or {})


def _attached(x: Tensor) -> Tensor:
    return x


@contextmanager
def whole_gradient(choices: Optional[List[Tensor]] = None
                   ) -> Iterator[List[Tensor]]:
    """Inside, the gradient of heads goes every way that the values go.

    Heads that refine boxes step by step cut the gradient of the reference
    points between the steps, which helps training and would make the
    sensitivity too small. Which places become queries (``topk``) is that of
    the first pass.

    Args:
        choices (list[Tensor], optional): Those of the clean pass. None: they
            are made. Defaults to None.
    """
    made: List[Tensor] = []
    given = iter(choices or ())

    def topk(x, k, dim=-1, *args, **kwargs):
        found = torch.topk(x, k, dim, *args, **kwargs)
        index = found[1] if choices is None else next(given)
        made.append(index)
        return torch.return_types.topk((x.gather(dim, index), index))

    with _HostCalls({Tensor.detach: _attached, torch.topk: topk}):
        yield made


def as_input(data_samples: list) -> list:
    """Data samples in the coordinates of the input, not of the file."""
    views = []
    for sample in data_samples:
        meta = dict(sample.metainfo)
        meta.update(ori_shape=meta['img_shape'], scale_factor=(1.0, 1.0))
        views.append(type(sample)(metainfo=meta))
    return views


# ------------------------------------------------------------- dense heads
def _one_stage(host: nn.Module, inputs: Tensor, data_samples: Optional[list],
               proposals: Any) -> Likelihood:
    features = _own(host, 'extract_feat')(inputs)
    with whole_gradient():
        outputs = host.bbox_head(features)
    return Likelihood(dense_terms(host.bbox_head, outputs))


def check_dense(head: nn.Module) -> None:
    """Raise unless a dense head is known."""
    if kind_of(head) not in {**_BOXES, **_OTHERS}:
        raise unknown(head)


def dense_terms(head: nn.Module, outputs: Sequence) -> Terms:
    """Terms of a head that answers at every place of every level.

    Args:
        head (nn.Module): The head.
        outputs (Sequence): What it returned: lists over levels of (B, C, H,
            W).

    Raises:
        NoLikelihood: It is not known what they mean.
    """
    kind = kind_of(head)
    if not all(isinstance(x, Tensor) for level in outputs for x in level):
        raise unknown(head)
    level_terms = _OTHERS.get(kind, _level)
    return {
        f'{name}{i}': term
        for i, level in enumerate(zip(*outputs))
        for name, term in level_terms(head, i, *level).items()
    }


def _level(head: nn.Module, level: int, classes: Tensor, box: Tensor,
           third: Optional[Tensor] = None) -> Terms:
    """One level of anchors or points: (B, A * K, H, W) classes, (B, A * 4 *
    n, H, W) boxes, and (B, A, H, W) centerness or overlap."""
    kind = kind_of(head)
    b, channels, h, w = classes.shape
    k = head.cls_out_channels
    if channels % k:
        raise unknown(head)
    per_anchor = classes.reshape(b, channels // k, k, h, w).transpose(1, 2)
    clean = per_anchor.detach().float()
    if _sigmoid(head):
        cls = Distribution('bernoulli', per_anchor)
        there = clean.sigmoid().amax(1)
    else:
        cls = Distribution('categorical', per_anchor)
        there = 1 - clean.softmax(1)[:, -1]
    terms = dict(cls=cls)
    if third is not None:
        if kind not in _WITH_CENTER or third.shape != there.shape:
            raise unknown(head)
        # nothing is learned about it where no object is
        terms['center'] = Distribution('bernoulli', third, weight=there)
    terms['box'] = _BOXES[kind](head, level, box, there)
    return terms


def _sigmoid(head: nn.Module) -> bool:
    """Whether every class is yes or no, or all a softmax."""
    found = getattr(head, 'use_sigmoid_cls', None)
    if found is None:
        found = getattr(getattr(head, 'loss_cls', None), 'use_sigmoid', None)
    if found is None:
        raise unknown(head, 'the classes')
    return found


def _per_anchor(head: nn.Module, box: Tensor, there: Tensor) -> Tensor:
    b, channels, h, w = box.shape
    anchors = there.size(1)
    if channels != 4 * anchors:
        raise unknown(head, 'the boxes')
    return box.reshape(b, anchors, 4, h, w).transpose(1, 2)


def _gaussian(value: Tensor, std: Tensor, there: Tensor) -> Distribution:
    """Of (B, 4, A, H, W) box values."""
    return Distribution(
        'gaussian', value, weight=there[:, None] / std.square())


def _deltas(head: nn.Module, level: int, box: Tensor,
            there: Tensor) -> Distribution:
    """Relative to an anchor, as its coder says."""
    value = _per_anchor(head, box, there)
    coder = head.bbox_coder
    unit = getattr(coder, 'stds', None)  # of center and log size
    if unit is None and getattr(coder, 'normalize_by_wh', False):
        unit = coder.normalizer  # distances to the sides
    if unit is None:
        raise unknown(head, 'the boxes')
    unit = torch.as_tensor(unit, dtype=torch.float32, device=box.device)
    std = ANCHOR_STD / unit.expand(4).view(1, 4, 1, 1, 1)
    return _gaussian(value, std, there)


def _stride(head: nn.Module, level: int) -> float:
    stride = head.prior_generator.strides[level]
    return float(stride if isinstance(stride, (int, float)) else stride[0])


def _sides(head: nn.Module, level: int, box: Tensor,
           there: Tensor) -> Distribution:
    """Distances to left, top, right and bottom, pixels."""
    value = _per_anchor(head, box, there)
    sizes = value.detach().float().unflatten(1, (2, 2)).sum(1)
    # a head may say that a box has no extent
    sizes = sizes.clamp_min(_stride(head, level))
    return _gaussian(value, ANCHOR_STD * sizes.repeat(1, 2, 1, 1, 1), there)


def _log_sides(head: nn.Module, level: int, box: Tensor,
               there: Tensor) -> Distribution:
    """Logarithms of these distances, of any unit."""
    value = _per_anchor(head, box, there)
    sides = value.detach().float().exp()
    sizes = sides.unflatten(1, (2, 2)).sum(1).repeat(1, 2, 1, 1, 1)
    return _gaussian(value, ANCHOR_STD * sizes / sides, there)


def _edges(head: nn.Module, level: int, box: Tensor,
           there: Tensor) -> Distribution:
    """Left, top, right and bottom, in cells."""
    value = _per_anchor(head, box, there)
    left_top, right_bottom = value.detach().float().chunk(2, 1)
    sizes = (right_bottom - left_top).clamp_min(1)
    return _gaussian(value, ANCHOR_STD * sizes.repeat(1, 2, 1, 1, 1), there)


def _bins(head: nn.Module, level: int, box: Tensor,
          there: Tensor) -> Distribution:
    """Every side is a softmax over distances."""
    b, channels, h, w = box.shape
    anchors, bins = there.size(1), head.reg_max + 1
    if channels != anchors * 4 * bins:
        raise unknown(head, 'the boxes')
    value = box.reshape(b, anchors * 4, bins, h, w).transpose(1, 2)
    weight = there.repeat_interleave(4, 1)[:, None]
    return Distribution('categorical', value, weight=weight)


def _yolox_level(head: nn.Module, level: int, classes: Tensor, box: Tensor,
                 objects: Tensor) -> Terms:
    """Center and log size, in cells."""
    there = objects.detach().float().sigmoid()
    return dict(
        object=Distribution('bernoulli', objects),
        cls=Distribution('bernoulli', classes, weight=there),
        box=Distribution('gaussian', box, weight=there / ANCHOR_STD**2))


def _yolov3_level(head: nn.Module, level: int, answers: Tensor) -> Terms:
    """(B, A * (5 + K), H, W): the center within the cell, before a sigmoid,
    the log size over that of the anchor, objectness and classes."""
    b, channels, h, w = answers.shape
    sizes = answers.new_tensor(
        [[x1 - x0, y1 - y0] for x0, y0, x1, y1 in
         head.prior_generator.base_anchors[level].tolist()])  # (A, 2)
    values = answers.reshape(b, len(sizes), -1, h, w).transpose(1, 2)
    center, size, objects, classes = values.split(
        [2, 2, 1, head.num_classes], 1)
    there = objects.detach().float().sigmoid()
    cells = sizes.float().t()[None, :, :, None, None] / _stride(head, level)
    std = torch.cat([cells, torch.ones_like(cells)], 1) * ANCHOR_STD
    return dict(
        object=Distribution('bernoulli', objects),
        cls=Distribution('bernoulli', classes, weight=there),
        box=Distribution('gaussian', torch.cat([center.sigmoid(), size], 1),
                         weight=there / std.square()))


def _tood_level(head: nn.Module, level: int, scores: Tensor,
                box: Tensor) -> Terms:
    logits = _logit(scores)
    there = scores.detach().float().amax(1, keepdim=True)
    return dict(
        cls=Distribution('bernoulli', logits),
        box=_edges(head, level, box, there))


def _centernet_level(head: nn.Module, level: int, scores: Tensor,
                     size: Tensor, offset: Tensor) -> Terms:
    """Size and offset of a box are in cells, of all classes."""
    there = scores.detach().float().amax(1, keepdim=True)
    value = torch.cat([offset, size], 1)
    std = ANCHOR_STD * size.detach().float().clamp_min(1).repeat(1, 2, 1, 1)
    return dict(
        cls=Distribution('bernoulli', _logit(scores)),
        box=Distribution('gaussian', value, weight=there / std.square()))


def _logit(p: Tensor) -> Tensor:
    """Of what a head gives as a probability."""
    return p.float().logit(1e-6)


#: How a head says a box, by the name of the head: its outputs are classes,
#: boxes and perhaps a third.
_BOXES = dict(
    **dict.fromkeys(
        ('RetinaHead', 'RetinaSepBNHead', 'FreeAnchorRetinaHead',
         'PISARetinaHead', 'FSAFHead', 'SSDHead', 'PISASSDHead', 'RPNHead',
         'ATSSHead', 'PAAHead', 'LADHead', 'DDODHead', 'YOLOFHead'), _deltas),
    **dict.fromkeys(
        ('FCOSHead', 'NASFCOSHead', 'AutoAssignHead', 'CenterNetUpdateHead',
         'VFNetHead', 'RTMDetHead', 'RTMDetSepBNHead'), _sides),
    **dict.fromkeys(('GFLHead', 'LDHead'), _bins),
    FoveaHead=_log_sides,
    RepPointsHead=_edges)
#: Those whose third output is how well a place stands for its object.
_WITH_CENTER = {
    'ATSSHead', 'PAAHead', 'LADHead', 'DDODHead', 'FCOSHead', 'NASFCOSHead',
    'AutoAssignHead'
}
#: Those of other outputs.
_OTHERS = dict(
    YOLOXHead=_yolox_level,
    YOLOV3Head=_yolov3_level,
    TOODHead=_tood_level,
    CenterNetHead=_centernet_level)


# ----------------------------------------------------------------- queries
_QUERY_HOSTS = {'DETR', 'ConditionalDETR', 'DABDETR', 'DeformableDETR', 'DINO'}
_SET_HEADS = {'MaskFormerHead', 'Mask2FormerHead'}


def _queries(host: nn.Module, inputs: Tensor, data_samples: Optional[list],
             proposals: Optional[List[Tensor]]) -> Likelihood:
    """What a transformer says of every query, in the last layer of its
    decoder."""
    with whole_gradient(proposals) as choices:
        answers = _own(host, '_forward')(inputs, data_samples)
    classes, boxes = (_last(host, x, 3) for x in answers[:2])
    cls, there = _query_classes(host.bbox_head, classes)
    # center and size, of which the size is the unit
    sizes = boxes.detach()[..., 2:].float().repeat(1, 1, 2)
    std = PROPOSAL_STD * sizes.clamp_min(SMALLEST_BOX)
    weight = there[..., None] / std.square()
    box = Distribution('gaussian', boxes, weight=weight)
    return Likelihood(dict(cls=cls, box=box), choices)


def _mask_set(host: nn.Module, inputs: Tensor, data_samples: Optional[list],
              proposals: Any) -> Likelihood:
    """A class and a mask of every query."""
    features = _own(host, 'extract_feat')(inputs)
    head = host.panoptic_head
    classes, masks = head(features, data_samples)
    cls, there = _query_classes(head, _last(head, classes, 3))
    mask = Distribution('bernoulli', _last(head, masks, 4),
                        weight=there[..., None, None])
    return Likelihood(dict(cls=cls, mask=mask))


def _query_classes(head: nn.Module, classes: Tensor):
    """The distribution of (B, Q, K) logits, and (B, Q), how likely there is
    an object."""
    value = classes.transpose(1, 2)  # (B, K, Q)
    clean = value.detach().float()
    if _sigmoid(head):
        return Distribution('bernoulli', value), clean.sigmoid().amax(1)
    return Distribution('categorical', value), 1 - clean.softmax(1)[:, -1]


def _last(module: nn.Module, x: Any, ndim: int) -> Tensor:
    x = x[-1] if isinstance(x, (list, tuple, Tensor)) and len(x) else None
    if not isinstance(x, Tensor) or x.dim() != ndim:
        raise unknown(module)
    return x
