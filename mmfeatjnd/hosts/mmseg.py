"""Segmentors of MMSegmentation."""
from typing import Any, List, Optional

from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Answer, Content, HostAdapter, Likelihood, run_host


def _slides(host: nn.Module) -> bool:
    """Whether predictions are made window by window."""
    test_cfg = getattr(host, 'test_cfg', None) or {}
    return test_cfg.get('mode') not in (None, 'whole')


class SegmentorAdapter(HostAdapter):
    """What MMSegmentation does in its own way."""

    def answer(self, host: nn.Module, inputs: Tensor,
               data_samples: Optional[list]) -> Answer:
        """See :meth:`HostAdapter.answer`. A softmax, or with one output
        channel a sigmoid."""
        self._check(host)
        logits = run_host(host, 'forward', inputs, data_samples, mode='tensor')
        # heads with further outputs for their losses (DANet, EncNet) predict
        # by the first
        if isinstance(logits, (list, tuple)) and len(logits):
            logits = logits[0]
        if not isinstance(logits, Tensor) or logits.dim() != 4:
            return super().answer(host, inputs, data_samples)
        return self._answer(host, logits)

    @staticmethod
    def _check(host: nn.Module) -> None:
        from mmseg.models.segmentors import DepthEstimator
        if isinstance(host, DepthEstimator):
            raise TypeError(
                f'{type(host).__name__} predicts depth, not classes. Use '
                "discrepancy=dict(type='mmfeatjnd.Annotation'), which works "
                'with every loss.')

    @staticmethod
    def _answer(host: nn.Module, logits: Tensor) -> Answer:
        if logits.size(1) > 1:
            return Answer(logits, 'categorical')
        head = host.decode_head
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        threshold = 0.3 if head.threshold is None else head.threshold
        return Answer(logits, 'binary', threshold)

    def predict(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        """See :meth:`HostAdapter.predict`. A crop of a training that was
        padded keeps its padding: the host would look for it where it is not,
        in logits of the size of the crop."""
        samples = data_samples and [s.clone() for s in data_samples]
        for sample in samples or ():
            sample.set_metainfo(dict.fromkeys(
                sample.metainfo.keys() & {'padding_size', 'img_padding_size'},
                [0] * 4))
        return run_host(host, 'predict', inputs, samples)

    def own_targets(self, host: nn.Module, inputs: Tensor,
                    data_samples: Optional[list], score_thr: float) -> List:
        """See :meth:`HostAdapter.own_targets`."""
        answer = self.answer(host, inputs, data_samples)
        logits = F.interpolate(
            answer.logits.float(), inputs.shape[-2:], mode='bilinear')
        maps = answer._replace(logits=logits).decisions()
        targets = []
        for sample, label in zip(data_samples, maps):
            target = type(sample)(metainfo=sample.metainfo)
            size = label.shape[-2:]
            target.gt_sem_seg = PixelData(data=label.view(1, *size))
            targets.append(target)
        return targets

    def likelihood(self,
                   host: nn.Module,
                   inputs: Tensor,
                   data_samples: Optional[list],
                   proposals: Any = None) -> Likelihood:
        """See :meth:`HostAdapter.likelihood`: a distribution for every pixel
        of the logits. Where the host slides a window over an image, those of
        all windows count, as in a prediction."""
        if not _slides(host):
            return super().likelihood(host, inputs, data_samples)
        self._check(host)
        size = tuple(inputs.shape[-2:])
        # the host writes the window's size into them
        metas = [dict(s.metainfo) for s in data_samples or ()] or [
            dict(ori_shape=size, img_shape=size, pad_shape=size)
            for _ in inputs
        ]
        answer = self._answer(
            host, run_host(host, 'inference', inputs, metas))
        return Likelihood(dict(cls=answer.distribution()))

    def content(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list],
                training: bool) -> Optional[List[Content]]:
        """See :meth:`HostAdapter.content`; nothing is known of windows."""
        if not training and _slides(host):
            return None
        return super().content(host, inputs, data_samples, training)
