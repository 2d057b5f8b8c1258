"""What every operation on features shares."""
from abc import ABC, abstractmethod
from typing import Dict, Tuple

from torch import Tensor

from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.models.run import Run, Visit


class BaseOperation(ABC):
    """Changes every level of a batch, and measures what it does.

    The settings alone: ``with neck.run(operation, images) as run`` applies
    them to a batch and holds what was measured.

    Args:
        seed (int): Seed of the random part. Defaults to 0.
    """

    #: Whether it needs the estimators, the task's Fisher information on the
    #: very images, and the host's own detections of them.
    needs_jnd = False
    needs_sensitivity = False
    needs_detections = False
    #: Whether it needs to know how little sure the host is of these images.
    needs_uncertainty = False
    #: Whether it waits for the metrics of the layers that read the split.
    needs_readers = False
    #: What is measured as a sum over levels, views and calls; the rest are
    #: means.
    totals: Tuple[str, ...] = ()
    #: Whether the padding of a map is not sent: a receiver puts there what
    #: an input of padding alone gives.
    leaves_out_padding = False
    #: Tokens around a picture that count as part of it.
    margin = 0

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    @abstractmethod
    def name(self) -> str:
        """How errors and rows of a curve name it."""

    def check(self, neck) -> None:
        """Raise if it needs the estimators and they were never trained.

        An estimator of a level that nothing reads is not trained; as long as
        nobody has asked the host, one trained estimator will do.
        """
        enough = any if neck.read_levels is None else all
        trained = [e.trained for e in neck.active_estimators()]
        if self.needs_jnd and not (trained and enough(trained)):
            raise CheckpointError(
                f'{self.name} needs a trained estimator, but this one never '
                'was. Test a checkpoint of FeatJND, or name an estimator '
                'file.')

    @abstractmethod
    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        """Change one level: (R, ...) to the same shape."""

    def finish(self, run: Run) -> None:
        """End what needs all levels of a batch."""

    def summary(self, columns: Dict[str, Tensor]) -> Dict[str, float]:
        """What is reported of a data set.

        Args:
            columns (dict[str, Tensor]): What was measured of each image,
                (N,), by name; NaN where an image had nothing to measure.

        Returns:
            dict[str, float]: Means over the images.
        """
        return {k: float(v.nanmean()) for k, v in columns.items()}

    @abstractmethod
    def row(self, summary: Dict[str, float]) -> dict:
        """A row of a curve from :meth:`summary`."""
