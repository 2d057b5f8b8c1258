"""Classifiers of MMPretrain."""
from typing import List, Optional

import torch
from torch import Tensor, nn

from .base import Answer, HostAdapter, run_host


class ClassifierAdapter(HostAdapter):
    """What MMPretrain does in its own way."""

    def answer(self, host: nn.Module, inputs: Tensor,
               data_samples: Optional[list]) -> Answer:
        """See :meth:`HostAdapter.answer`. A softmax, or with a multi-label
        head a sigmoid on every logit."""
        from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
        head = getattr(host, 'head', None)
        several = isinstance(head, MultiLabelClsHead)
        # by its name: the original line of host libraries has no such head
        regression = any(c.__name__ == 'RegressionHead'
                         for c in type(head).__mro__)
        if regression or not isinstance(head, (ClsHead, MultiLabelClsHead)):
            raise TypeError(
                f"the head of {type(host).__name__}, {type(head).__name__}, "
                'predicts no classes. Use discrepancy=dict(type='
                "'mmfeatjnd.Annotation'), which works with every loss.")
        logits = run_host(host, 'forward', inputs, data_samples, mode='tensor')
        if isinstance(logits, (list, tuple)) and len(logits) == 1:
            logits = logits[0]
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            return super().answer(host, inputs, data_samples)
        if several:
            threshold = 0.5 if head.thr is None else head.thr
            return Answer(logits, 'binary', threshold)
        if logits.size(1) < 2:
            raise TypeError(
                f'{type(host).__name__} has a softmax over one class, which '
                'says the same of every image. Use discrepancy=dict(type='
                "'mmfeatjnd.Annotation').")
        return Answer(logits, 'categorical')

    def own_targets(self, host: nn.Module, inputs: Tensor,
                    data_samples: Optional[list], score_thr: float) -> List:
        """See :meth:`HostAdapter.own_targets`."""
        from mmpretrain.structures import DataSample
        answer = self.answer(host, inputs, data_samples)
        samples = data_samples or [DataSample() for _ in answer.logits]
        targets = [DataSample(metainfo=s.metainfo) for s in samples]
        if answer.kind == 'categorical':
            # one at a time in a tensor: a number would go by way of the CPU
            for target, label in zip(targets, answer.decisions()[:, None]):
                target.set_gt_label(label)
            return targets
        topk = host.head.topk if host.head.thr is None else None
        yes = answer.decisions()
        if topk is not None:
            best = answer.logits.topk(topk, 1).indices
            yes = torch.zeros_like(yes).scatter_(1, best, 1)
        for target, row in zip(targets, yes):
            target.set_gt_score(row.float())
        return targets
