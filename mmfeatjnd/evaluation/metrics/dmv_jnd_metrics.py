"""Metrics of DMV-JND (Jin et al., arXiv 2102.08168).

They read what :meth:`mmfeatjnd.models.DMVJND.predict` writes into the data
samples.
"""
from typing import Dict, List, Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmfeatjnd.functional.dmv_jnd import psnr
from mmfeatjnd.registry import METRICS


class _DMVJNDMetric(BaseMetric):
    """Keeps one row of numbers an image."""

    def row(self, measured: dict, sample: dict) -> Dict[str, float]:
        """The numbers of one image, by name."""
        raise NotImplementedError

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the rows of a batch."""
        for sample in data_samples:
            if 'dmv_jnd' not in sample:
                raise KeyError(
                    f'{type(self).__name__} needs the predictions of '
                    'mmfeatjnd.DMVJND, but the model is another one')
            self.results.append(self.row(sample['dmv_jnd'], sample))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """The means over the images."""
        return {
            name: float(torch.tensor([r[name] for r in results]).mean())
            for name in results[0]
        }


@METRICS.register_module()
class RelativeAccuracy(_DMVJNDMetric):
    """RCA, eq. (16) and (17), in percent: how many images keep the label that
    the classifier gives to the clean image.

    ``rca/<task>`` is of one task, ``rca/mean`` of all. For other tasks than
    classification it is the agreement that the task defines. With annotated
    labels also ``accuracy_clean/<task>`` and ``accuracy/<task>``, the latter
    on the distorted images.
    """

    default_prefix = None

    def row(self, measured: dict, sample: dict) -> Dict[str, float]:
        """In percent."""
        tasks = measured['tasks']
        row = {
            f'rca/{name}': 100 * float(task['agreement'])
            for name, task in tasks.items()
        }
        row['rca/mean'] = sum(row.values()) / len(row)
        truth = sample.get('gt_label')
        if truth is None or len(truth) != 1:
            return row
        for name, task in tasks.items():
            for key, label in (('accuracy_clean', 'reference_label'),
                               ('accuracy', 'label')):
                if label in task:
                    row[f'{key}/{name}'] = 100. * bool(
                        task[label].item() == truth.item())
        return row


@METRICS.register_module()
class PeakSNR(_DMVJNDMetric):
    r"""PSNR of x + e in dB, the mean over the images.

    Also ``psnr_of_mean``, of the mean squared error over all images, which
    no unchanged image makes infinite.

    Args:
        data_range (float): R in :math:`10 \log_{10}(R^2 / \mathrm{MSE})`, in
            pixels. Defaults to 255.
        **kwargs: Of MMEngine's ``BaseMetric``.
    """

    def __init__(self, data_range: float = 255.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.data_range = data_range

    def row(self, measured: dict, sample: dict) -> Dict[str, float]:
        """The PSNR and the mean squared error."""
        mse = torch.as_tensor(measured['mse'])
        return dict(psnr=float(psnr(mse, self.data_range)), mse=float(mse))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """In dB."""
        means = super().compute_metrics(results)
        of_mean = psnr(torch.tensor(means['mse']), self.data_range)
        return dict(psnr=means['psnr'], psnr_of_mean=float(of_mean))


@METRICS.register_module()
class JNDMagnitude(_DMVJNDMetric):
    """N0 and its target N, eq. (11) and (12), means over the images, in the
    unit of the normalized image: 2 is the whole range."""

    def row(self, measured: dict, sample: dict) -> Dict[str, float]:
        """N0 and N."""
        return dict(
            jnd_magnitude=float(measured['magnitude']),
            jnd_target=float(measured['target']))
