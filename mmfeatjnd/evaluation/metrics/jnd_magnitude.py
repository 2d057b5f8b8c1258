"""The mean magnitude of the JND against its target."""
from typing import Dict

from torch import Tensor

from mmfeatjnd.registry import METRICS
from .base_dmv_jnd_metric import BaseDMVJNDMetric


@METRICS.register_module()
class JNDMagnitude(BaseDMVJNDMetric):
    r"""N0 and its target N of DMV-JND (arXiv 2102.08168, eq. 10 to 12), means
    over the images, in the unit of the normalized image: 2 is the whole range
    with mean and standard deviation 0.5.

    - ``jnd_magnitude``: N0, the mean of \|e\|; in [0, 2] where x + e is
      clipped.
    - ``jnd_target``: N, in [0, ``target_scale`` of :class:`DMVJNDLoss`].

    Args:
        **kwargs: Of MMEngine's ``BaseMetric``.
    """

    def row(self, measured: dict, sample: dict) -> Dict[str, Tensor]:
        """N0 and N; see :class:`BaseDMVJNDMetric`."""
        return dict(
            jnd_magnitude=measured['magnitude'],
            jnd_target=measured['target'])
