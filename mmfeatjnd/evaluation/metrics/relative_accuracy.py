"""How many images keep their label."""
from typing import Dict

from torch import Tensor

from mmfeatjnd.registry import METRICS
from .base_dmv_jnd_metric import BaseDMVJNDMetric


@METRICS.register_module()
class RelativeAccuracy(BaseDMVJNDMetric):
    """RCA of DMV-JND (arXiv 2102.08168, eq. 16 and 17): the share of images
    that keep the label which the classifier gives to the clean image.

    All in percent, [0, 100]:

    - ``rca/<task>``: of one task. For other tasks than classification it is
      the mean of the agreement that the task defines.
    - ``rca/mean``: the mean of the tasks.
    - ``accuracy_clean/<task>``, ``accuracy/<task>``: against the annotated
      label, on clean and on distorted images. Only of classifiers, and with
      one ``gt_label`` an image.

    Args:
        **kwargs: Of MMEngine's ``BaseMetric``.
    """

    def row(self, measured: dict, sample: dict) -> Dict[str, Tensor]:
        """In percent; see :class:`BaseDMVJNDMetric`."""
        tasks = measured['tasks']
        row = {f'rca/{name}': t['agreement'] for name, t in tasks.items()}
        row['rca/mean'] = sum(row.values()) / len(row)
        truth = sample.get('gt_label')
        if truth is not None and len(truth) == 1:
            for name, task in tasks.items():
                for key, label in (('accuracy_clean', 'reference_label'),
                                   ('accuracy', 'label')):
                    if label in task:
                        row[f'{key}/{name}'] = task[label] == truth[0]
        return {name: 100 * value.float() for name, value in row.items()}
