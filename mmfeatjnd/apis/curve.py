"""Measure operations at the split in few passes over the data."""
import copy
from contextlib import contextmanager, nullcontext, redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from mmfeatjnd.evaluation import scalar_metrics
from mmfeatjnd.evaluation.bootstrap import (
    correct_answers,
    image_weights,
    keeping_images,
)
from mmfeatjnd.functional import nats as divergence
from mmfeatjnd.hosts import Likelihood, adapter_of
from mmfeatjnd.models import (
    BaseOperation,
    Perturbation,
    PrefixReplay,
    Run,
    build_distortion,
    neck_at,
)
from mmfeatjnd.models.estimator_file import read_estimator
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.models.run import Measurements, columns_of
from mmfeatjnd.utils import type_name, unwrapped
from .building import build_runner

_HOOKS = ('PerturbationHook', 'QuantizationHook')


class _Setting:
    """One row: an operation, its own evaluator, and what it measured."""

    def __init__(self, evaluator, operation: Optional[BaseOperation] = None):
        self.evaluator = evaluator
        self.operation = operation
        self.measurements = Measurements()
        self.nats: List[Tensor] = []

    def row(self, size: int, draws: int = 0) -> dict:
        per_image = self._per_image() if draws else {}
        # the tables that COCO's tools print would bury the progress bar
        with redirect_stdout(StringIO()), keeping_images() as kept:
            metrics = self.evaluator.evaluate(size)
        row = {}
        if self.operation is not None:
            columns = columns_of(self.measurements.rows(),
                                 self.operation.totals)
            if not columns:
                raise RuntimeError(
                    f'{self.operation.name} has changed nothing: no image of '
                    'the test data has a region at the split')
            row = self.operation.row(self.operation.summary(columns))
        row['metrics'] = scalar_metrics(metrics)
        if self.nats:
            per_image['kl'] = torch.cat(self.nats).double().cpu().numpy()
            row['metrics']['kl'] = float(np.nanmean(per_image['kl']))
        if draws:
            weights = image_weights(size, draws)
            row['draws'] = {
                name: values.tolist()
                for name, values in kept.draws(per_image, weights).items()
            }
        return row

    def _per_image(self) -> Dict[str, np.ndarray]:
        """What a classifier's evaluator has kept of each image."""
        for metric in self.evaluator.metrics:
            if type(metric).__name__ == 'Accuracy' and metric.results:
                return {'accuracy/top1': correct_answers(metric.results)}
        return {}


def new_evaluator(runner: Runner, loader: DataLoader) -> Evaluator:
    """Another one of ``test_evaluator``, for the data of a loader."""
    evaluator = runner.build_evaluator(
        copy.deepcopy(runner.cfg.test_evaluator))
    evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
    return evaluator


class OperationTest:
    """A host and its estimators, on the test data of a config.

    Args:
        cfg (Config): A config of any host; its test data
            loader and evaluator are used. Its hooks see one test, as in
            ``tools/test.py``, and no iterations of it.
        checkpoint (str): Host and estimator, or the host alone when
            ``estimators`` are given.
        estimators (Sequence[str]): Estimator files. Defaults to (): the
            checkpoint's.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the config's; 'backbone' for a plain host.
        levels (Sequence[int], optional): See there. Defaults to None: all.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        CheckpointError: It is of another host.

    Example:
        >>> test = OperationTest(cfg, checkpoint)
        Loads checkpoint ...
        >>> rows = test.measure([(0, Perturbation('gaussian', 0.5))])
        >>> [sorted(row)[:2] for row in rows]  # clean, and with noise
        [['metrics'], ['distortion', 'metrics']]
    """

    def __init__(self,
                 cfg: Config,
                 checkpoint: str,
                 estimators: Sequence[str] = (),
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None) -> None:
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f'No checkpoint at {checkpoint}')
        cfg = copy.deepcopy(cfg)
        cfg.load_from = checkpoint
        cfg.custom_hooks = [
            h for h in cfg.get('custom_hooks') or []
            if type_name(h) not in _HOOKS
        ]
        self.runner = build_runner(cfg)
        # an EMA of the host is made by one hook and loaded by another
        self.runner.call_hook('before_run')
        self.runner.load_or_resume()
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.model = unwrapped(self.runner.model).eval()
        self.neck = neck_at(self.model, split, levels,
                            *estimators[:1])
        # read, and checked against the host, once
        self.states = [
            read_estimator(self.model, f, self.neck) for f in estimators
        ]
        self._used: Optional[int] = None

    def use(self, estimator: int) -> None:
        """Load the i-th estimator, if there are several."""
        if self.states and self._used != estimator:
            self.neck.estimators.load_state_dict(self.states[estimator])
            self._used = estimator

    def dataloader(self):
        """A new data loader over the test data."""
        return self.runner.build_dataloader(self.runner.cfg.test_dataloader)

    @contextmanager
    def batch(
        self, batch: dict, operations: Sequence[BaseOperation]
    ) -> Iterator[Tuple[list, Callable]]:
        """Run the clean host on a batch, and what comes before the split only
        this once.

        Args:
            batch (dict): Batch of a data loader.
            operations (Sequence[BaseOperation]): What will run on it.

        Yields:
            tuple[list, Callable]: The clean predictions, and a function from
            an operation to the predictions under it and the run.
        """
        data = self.model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data.get('data_samples')
        with torch.no_grad():
            self.use(0)
            known = prepare(self.neck, operations, inputs, samples)
            prefix = PrefixReplay(self.neck)

            def predict(operation: BaseOperation) -> Tuple[list, Run]:
                with self.neck.run(operation, **known) as run, \
                        prefix.replay():
                    outputs = self.model.predict(inputs, samples)
                return outputs, run

            def answer(operation=None, proposals=None) -> Likelihood:
                change = nullcontext() if operation is None else \
                    self.neck.run(operation, **known)
                with change, prefix.replay():
                    return adapter_of(self.model).likelihood(
                        self.model, inputs, samples, proposals)

            with prefix.record():
                clean = self.model.predict(inputs, samples)
            predict.nats = lambda: _nats_from(answer(), answer, len(inputs))
            yield clean, predict

    def measure(self,
                operations: Sequence[Tuple[int, BaseOperation]],
                settings_per_pass: int = 24,
                nats: bool = False,
                draws: int = 0) -> List[dict]:
        """The task metrics under every operation.

        All operations share a pass over the data: an image is loaded and runs
        through the part before the split once, and the rest of the host runs
        once for every operation.

        Args:
            operations (Sequence[tuple]): Index of the estimator, and the
                operation.
            settings_per_pass (int): Bounds the memory that the evaluators
                take. Defaults to 24.
            nats (bool): Whether to measure how far the host's answer is from
                the clean one, too: ``kl`` of the metrics, the mean over the
                images of :func:`mmfeatjnd.functional.nats`. It takes one more
                pass of the rest of the host. Defaults to False.
            draws (int): Number of draws of the bootstrap over images. Rows
                then hold ``draws``, by metric a list of its value on the
                images as they are and on every draw, the same ones in all
                rows. Defaults to 0.

        Returns:
            list[dict]: The metrics of the clean host, then for every
            operation its :meth:`BaseOperation.row` with ``metrics``.
        """
        rows: List[dict] = []
        # at least the clean host
        for start in range(0, max(len(operations), 1), settings_per_pass):
            chunk = operations[start:start + settings_per_pass]
            rows += self._one_pass(chunk, not rows, nats, draws)
        self.runner.call_hook('after_test_epoch', metrics=rows[0]['metrics'])
        self.runner.call_hook('after_test')
        self.runner.call_hook('after_run')
        return rows

    def _one_pass(self, operations, clean: bool, nats: bool,
                  draws: int) -> List[dict]:
        loader = self.dataloader()
        self.neck.forget()

        def new(operation=None):
            return _Setting(new_evaluator(self.runner, loader), operation)

        settings = [(i, new(operation)) for i, operation in operations]
        reference = new()
        bar = ProgressBar(len(loader) * (len(settings) + 1))
        for batch in loader:
            with self.batch(batch,
                            [o for _, o in operations]) as (outputs, predict):
                if clean:
                    reference.evaluator.process(outputs, batch)
                bar.update()
                distance = predict.nats() if nats else None
                for i, setting in settings:
                    self.use(i)
                    outputs, run = predict(setting.operation)
                    setting.evaluator.process(outputs, batch)
                    setting.measurements.add([run])
                    if nats:
                        setting.nats.append(distance(setting.operation))
                    bar.update()
        size = len(loader.dataset)
        rows = [reference.row(size, draws)] if clean else []
        return rows + [setting.row(size, draws) for _, setting in settings]


def _nats_from(clean: Likelihood, answer: Callable,
               batch_size: int) -> Callable[[BaseOperation], Tensor]:
    """A function from an operation to how far it moves the host's answer, in
    nats of each image, (B,)."""

    def distance(operation: BaseOperation) -> Tensor:
        changed = answer(operation, clean.proposals)
        return divergence(clean.terms, changed.terms, batch_size)

    return distance


def measure_curve(cfg: Config,
                  checkpoint: str,
                  distortions: Sequence[str],
                  nrmse: Sequence[float],
                  seeds: Sequence[int] = (0, ),
                  estimators: Sequence[str] = (),
                  definition: str = 'rms',
                  split: Optional[str] = None,
                  levels: Optional[Sequence[int]] = None) -> List[dict]:
    """The task metric for every distortion, NRMSE and seed.

    Args:
        cfg (Config): See :class:`OperationTest`.
        checkpoint (str): See :class:`OperationTest`.
        distortions (Sequence[str]): Names in ``DISTORTIONS``.
        nrmse (Sequence[float]): NRMSE of each image and level.
        seeds (Sequence[int]): Seeds of the noise. A distortion without a
            random part is measured once for each estimator. Defaults to (0,).
        estimators (Sequence[str]): Estimator files; the i-th seed uses the
            i-th file, and their number must be that of the seeds. Defaults
            to (): the checkpoint's.
        definition (str): Definition of the NRMSE. Defaults to 'rms'.
        split (str, optional): See :class:`OperationTest`. Defaults to None.
        levels (Sequence[int], optional): See :class:`OperationTest`. Defaults
            to None.

    Returns:
        list[dict]: The rows, see :mod:`mmfeatjnd.evaluation.curve`. The first
        is the clean host.

    Example:
        >>> rows = measure_curve(cfg, checkpoint, ['gaussian'], [0.5])
        Loads checkpoint ...
        >>> [(row['distortion'], row['nrmse']) for row in rows]
        [('clean', 0.0), ('gaussian', 0.5)]
        >>> round(rows[1]['nrmse_measured'], 3), list(rows[1]['metrics'])
        (0.5, ['accuracy/top1'])
    """
    check_seeds(seeds, estimators)
    test = OperationTest(cfg, checkpoint, estimators, split, levels)
    signed = all(e.mode == 'signed' for e in test.neck.estimators)

    def differs(name: str) -> bool:
        distortion = build_distortion(name)
        return distortion.random or (distortion.needs_jnd
                                     and bool(estimators or not signed))

    rows = test.measure([
        (i, Perturbation(distortion, value, definition, seed))
        for (i, seed), distortion, value in product(
            enumerate(seeds), distortions, nrmse)
        # a further seed must not measure the same again
        if i == 0 or differs(distortion)
    ])
    clean = dict(
        distortion='clean',
        nrmse=0.0,
        nrmse_measured=0.0,
        participation_ratio=0.0,
        seed=0)
    return [dict(clean, **rows[0])] + rows[1:]


def check_seeds(seeds: Sequence[int], estimators: Sequence[str]) -> None:
    """Raise unless there is one estimator for each seed, or none."""
    if estimators and len(estimators) != len(seeds):
        raise ValueError(f'{len(estimators)} estimators for {len(seeds)} '
                         'seeds: give one for each.')
