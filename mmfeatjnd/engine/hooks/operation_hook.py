"""What the hooks share that test a host with changed features."""
import logging
from contextlib import contextmanager
from typing import Iterator, Optional, Sequence

from mmengine.dist import collect_results, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmfeatjnd.models import (
    BaseOperation,
    FeatJNDNeck,
    check_host_weights,
    neck_at,
)
from mmfeatjnd.models.estimator_file import read_estimator
from mmfeatjnd.models.forward_runs import every_forward
from mmfeatjnd.models.run import Measurements, columns_of
from mmfeatjnd.utils import unwrapped


@contextmanager
def using_state(module: nn.Module, state: Optional[dict]) -> Iterator[None]:
    """Another state of a module inside; None: its own."""
    if state is None:
        yield
        return
    own = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(own)


class OperationHook(Hook):
    """Runs an operation at the split in ``tools/test.py`` and in validation.

    What the operation measures stands beside the task metrics, as
    ``jnd/<name>``. The operation acts within the iterations of the loop only:
    the model is the host's own before, after, and after an error.

    Args:
        operation (BaseOperation): The operation.
        estimator (str, optional): A file of
            :func:`mmfeatjnd.apis.save_estimator`, whose estimators are used
            in testing and in validation; the model keeps its own. Defaults
            to None: the estimators of the model.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the config's; 'backbone' for a plain host.
        levels (Sequence[int], optional): See there. Defaults to None: all.
    """

    # Before RuntimeInfoHook, which hands the metrics to the log.
    priority = 'HIGHEST'

    def __init__(self,
                 operation: BaseOperation,
                 estimator: Optional[str] = None,
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None) -> None:
        self.operation = operation
        self.estimator = estimator
        self.split = split
        self.levels = levels
        self._neck: Optional[FeatJNDNeck] = None
        self._measurements = Measurements()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that everything of the host is there, unless a stock host is
        trained, which may begin with a part."""
        model = unwrapped(runner.model)
        if isinstance(runner._train_loop, BaseLoop) and not any(
                isinstance(m, FeatJNDNeck) for m in model.modules()):
            return
        check_host_weights(
            model, checkpoint.get('state_dict', checkpoint),
            f'the checkpoint {runner._load_from or ""}'.rstrip())

    def _neck_of(self, host: nn.Module) -> FeatJNDNeck:
        # what it has learned of a plain host holds for every epoch
        if self._neck is None or self._neck.host is not host:
            self._neck = neck_at(host, self.split, self.levels,
                                 self.estimator)
        return self._neck

    def _begin(self, runner: Runner, loop) -> None:
        host = unwrapped(runner.model)
        neck = self._neck_of(host)
        self._measurements = Measurements()
        state = None
        if self.estimator is not None:
            state = read_estimator(host, self.estimator, neck)
        neck.forget()
        left = vars(loop).pop('run_iter', None)  # by a test that broke off
        if left is not None and getattr(left, 'hook', None) is not self:
            raise RuntimeError(
                f'{type(self).__name__}: another hook operates on the '
                'features of this test already. Use one of them.')
        run_iter = loop.run_iter

        def operating(*args, **kwargs):
            with using_state(neck.estimators, state), every_forward(
                    neck, self.operation) as runs:
                result = run_iter(*args, **kwargs)
            if not runs:
                raise RuntimeError(
                    f'{self.operation.name} was not reached: '
                    f'{type(host).__name__} predicts without its `forward`')
            self._measurements.add(runs)
            return result

        operating.hook = self
        # On the loop, not on the model, which an error must leave clean.
        loop.run_iter = operating

    def _end(self, runner: Runner, loop, metrics: Optional[dict]) -> None:
        del loop.run_iter
        rows = self._measurements.rows()
        if get_world_size() > 1:
            # interleaved and cut to the data set, as the metrics are
            rows = collect_results(rows, len(loop.dataloader.dataset), 'cpu')
        if metrics is None or not rows:
            return
        columns = columns_of(rows, self.operation.totals)
        if not columns:
            print_log(
                f'{self.operation.name} has changed nothing: no image has a '
                'region at the split',
                logger='current',
                level=logging.WARNING)
            return
        measured = {
            f'jnd/{k}': v
            for k, v in self.operation.summary(columns).items()
        }
        if metrics:
            metrics.update(measured)
        else:  # nothing else was measured: `save_best` would take ours
            print_log(
                f'The evaluators measured nothing; beside them: {measured}',
                logger='current',
                level=logging.WARNING)

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin to operate."""
        self._begin(runner, runner.test_loop)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to operate."""
        self._begin(runner, runner.val_loop)

    def after_test_epoch(self, runner, metrics=None) -> None:
        """End, and add the measurements to the metrics."""
        self._end(runner, runner.test_loop, metrics)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """End, and add the measurements to the metrics."""
        self._end(runner, runner.val_loop, metrics)
