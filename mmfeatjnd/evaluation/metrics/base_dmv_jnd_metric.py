"""What the metrics of DMV-JND (Jin et al., arXiv 2102.08168) share."""
from abc import abstractmethod
from typing import Dict, List, Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor


class BaseDMVJNDMetric(BaseMetric):
    """Keeps a row of numbers of each image that
    :meth:`mmfeatjnd.models.DMVJND.predict` writes into its data sample.

    Args:
        **kwargs: Of MMEngine's ``BaseMetric``.
    """

    default_prefix = ''  # the names say whose they are

    @abstractmethod
    def row(self, measured: dict, sample: dict) -> Dict[str, Tensor]:
        """The numbers of one image.

        Args:
            measured (dict): ``dmv_jnd`` of the data sample.
            sample (dict): The data sample.

        Returns:
            dict: Scalar tensors by name; the same names for every image.
        """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the rows of a batch, one dict of floats an image.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): What the model predicts.

        Raises:
            KeyError: The model is not a DMVJND.
        """
        for sample in data_samples:
            if 'dmv_jnd' not in sample:
                raise KeyError(
                    f'{type(self).__name__} measures the predictions of '
                    "mmfeatjnd.DMVJND, but the data samples have no 'dmv_jnd'"
                    ': test a model of that type, or remove the metric')
        rows = [self.row(s['dmv_jnd'], s) for s in data_samples]
        # one transfer from the device a batch
        table = torch.stack([torch.stack([*row.values()]) for row in rows])
        self.results += [dict(zip(*row)) for row in zip(rows, table.tolist())]

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """The means over the images.

        Args:
            results (list[dict]): A row of each image.
        """
        return {
            name: column.mean().item()
            for name, column in self.columns(results).items()
        }

    @staticmethod
    def columns(results: List[dict]) -> Dict[str, Tensor]:
        """The numbers of all images, (P,), float64, by name.

        Args:
            results (list[dict]): A row of each image.
        """
        return {
            name: torch.tensor([row[name] for row in results],
                               dtype=torch.float64)
            for name in results[0]
        }
