"""The strength of the distortion in dB."""
from typing import Dict, List

from torch import Tensor

from mmfeatjnd.functional.dmv_jnd import psnr
from mmfeatjnd.registry import METRICS
from .base_dmv_jnd_metric import BaseDMVJNDMetric


@METRICS.register_module()
class PeakSNR(BaseDMVJNDMetric):
    r"""PSNR of the distorted image, :math:`10 \log_{10}(R^2 / \mathrm{MSE})`,
    in dB.

    - ``psnr``: the mean over the images; infinite if one is unchanged.
    - ``psnr_of_mean``: of the mean squared error over all images; finite
      unless all are unchanged, and at most ``psnr``.

    Args:
        data_range (float): R, in pixels. Defaults to 255: of 8 bit.
        **kwargs: Of MMEngine's ``BaseMetric``.

    Raises:
        ValueError: R is not positive.
    """

    def __init__(self, data_range: float = 255.0, **kwargs) -> None:
        super().__init__(**kwargs)
        if data_range <= 0:
            raise ValueError('PeakSNR: data_range must be > 0, but got '
                             f'{data_range}')
        self.data_range = data_range

    def row(self, measured: dict, sample: dict) -> Dict[str, Tensor]:
        """The mean squared error in pixels squared; see
        :class:`BaseDMVJNDMetric`."""
        return dict(mse=measured['mse'])

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """In dB.

        Args:
            results (list[dict]): ``mse`` of each image.
        """
        mse = self.columns(results)['mse']
        return dict(
            psnr=psnr(mse, self.data_range).mean().item(),
            psnr_of_mean=psnr(mse.mean(), self.data_range).item())
