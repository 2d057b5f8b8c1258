"""What the hooks share that test a host with changed features."""
from typing import Dict, List, Optional

import torch
from mmengine.dist import collect_results, get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from mmfeatjnd.models import BaseOperation, find_neck


class OperationHook(Hook):
    """Runs an operation at the split in ``tools/test.py`` and in validation.

    What the operation measures stands beside the task metrics, as
    ``jnd/<name>``: means over the images.

    Args:
        operation (BaseOperation): The operation.
        estimator (str, optional): A file of
            :func:`mmfeatjnd.apis.save_estimator`, loaded onto the host.
            Defaults to None: the estimator of the checkpoint.
    """

    # Before RuntimeInfoHook, which hands the metrics to the log.
    priority = 'HIGHEST'

    def __init__(self,
                 operation: BaseOperation,
                 estimator: Optional[str] = None) -> None:
        self.operation = operation
        self.estimator = estimator
        self._rows: List[Dict[str, torch.Tensor]] = []

    def _set_operation(self, runner: Runner) -> None:
        neck = find_neck(runner.model)
        if self.estimator is not None:
            from mmfeatjnd.apis import load_estimator
            load_estimator(runner.model, self.estimator)
        self.operation.check(neck)
        self._rows = []
        self._neck = neck
        neck.operation = self.operation

    def _name_images(self, runner: Runner, data_batch: dict) -> None:
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        inputs = data_batch['inputs']
        samples = data_batch.get('data_samples')
        if isinstance(model, BaseTTAModel):  # views of batches
            inputs = inputs[0]
            samples = samples and samples[0]
        sensitivity = None
        if self.operation.needs_sensitivity:
            sensitivity = self._sensitivity(model, data_batch)
        self.operation.start(samples, len(inputs), sensitivity)

    def _sensitivity(self, model, data_batch: dict):
        if not hasattr(model, 'sensitivity'):
            raise RuntimeError(
                f'{self.operation.name} needs the model to be '
                "type='mmfeatjnd.FeatJND', and works without --tta.")
        data = model.data_preprocessor(data_batch, False)
        return model.sensitivity(data['inputs'], data['data_samples'])

    def _keep_measured(self) -> None:
        neck = self._neck
        if missing := sorted(set(neck.levels) - self.operation.levels):
            raise RuntimeError(
                f"{type(self).__name__}: split='{neck.split}' was not "
                f'reached for level(s) {missing} of in_channels='
                f'{list(neck.in_channels)}. Choose another `split` of '
                'FeatJNDNeck, or set `in_channels` and `levels` to what it '
                'emits.')
        self._rows.append(self.operation.measured())

    def _remove_operation(self, dataloader, metrics) -> None:
        self._neck.operation = None
        if not self._rows:
            return
        names = list(self._rows[0])
        rows = torch.cat([
            torch.stack([batch[n] for n in names], 1).cpu()
            for batch in self._rows
        ]).tolist()
        if get_world_size() > 1:
            # interleaved and cut to the data set, as the metrics are
            rows = collect_results(rows, len(dataloader.dataset), 'cpu')
        if metrics is None or not rows:
            return
        for name, value in zip(names, torch.tensor(rows).mean(0).tolist()):
            metrics[f'jnd/{name}'] = value

    def before_test_epoch(self, runner: Runner) -> None:
        """Set the operation."""
        self._set_operation(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Set the operation."""
        self._set_operation(runner)

    def before_test_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Name the images of the batch."""
        self._name_images(runner, data_batch)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Name the images of the batch."""
        self._name_images(runner, data_batch)

    def after_test_iter(self, *args, **kwargs) -> None:
        """Keep what was measured."""
        self._keep_measured()

    def after_val_iter(self, *args, **kwargs) -> None:
        """Keep what was measured."""
        self._keep_measured()

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Remove the operation and add the measurements to the metrics."""
        self._remove_operation(runner.test_dataloader, metrics)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Remove the operation and add the measurements to the metrics."""
        self._remove_operation(runner.val_dataloader, metrics)
