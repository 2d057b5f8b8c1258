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
from mmengine.dist import collect_results, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from mmfeatjnd.evaluation import scalar_metrics
from mmfeatjnd.evaluation.bootstrap import (
    Kept,
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
    TailMemo,
    neck_at,
)
from mmfeatjnd.models.estimator_file import read_estimator
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.models.run import Measurements, columns_of
from mmfeatjnd.utils import on_first_rank, type_name, unwrapped
from .building import build_runner

_HOOKS = ('PerturbationHook', 'QuantizationHook')


class Setting:
    """One row: an operation, its own evaluator, and what it measured.

    Args:
        evaluator (Evaluator): Of :func:`new_evaluator`.
        operation (BaseOperation, optional): Defaults to None: the host as it
            is.
    """

    def __init__(self, evaluator, operation: Optional[BaseOperation] = None):
        self.evaluator = evaluator
        self.operation = operation
        self.measurements = Measurements()
        self.nats: List[Tensor] = []

    def row(self, size: int, nats: bool = False, draws: int = 0,
            per_image: Optional[Dict[str, list]] = None) -> dict:
        """The row, on every rank, of what all ranks have measured.

        Args:
            size (int): Images of the data set.
            nats (bool): See :meth:`OperationTest.measure`. Defaults to False.
            draws (int): See there. Defaults to 0.
            per_image (dict[str, list], optional): What else there are draws
                of, in this rank's order. Defaults to None: nothing.
        """
        # Whatever this rank has seen, it takes part: else the others wait.
        measured = collected(self.measurements.rows(), size)
        kl = collected(torch.cat(self.nats).double().tolist()
                       if self.nats else [], size) if nats else []
        answers = self._answers(size) if draws else {}
        answers.update((name, np.array(collected(values, size)))
                       for name, values in (per_image or {}).items())
        # the tables that COCO's tools print would bury the progress bar
        with redirect_stdout(StringIO()), keeping_images() as kept:
            metrics = self.evaluator.evaluate(size)
        return on_first_rank(lambda: self._row(
            size, metrics, measured, kl, answers, kept, draws))

    def _row(self, size: int, metrics: dict, measured: List[dict],
             kl: List[float], answers: Dict[str, np.ndarray], kept: Kept,
             draws: int) -> dict:
        row, per_image = {}, dict(answers)
        if self.operation is not None:
            columns = columns_of(measured, self.operation.totals)
            if not columns:
                raise RuntimeError(
                    f'{self.operation.name} has changed nothing: no image of '
                    'the test data has a region at the split')
            row = self.operation.row(self.operation.summary(columns))
            if 'coded_bytes' in columns:
                per_image['coded_bytes'] = columns['coded_bytes'].numpy()
        row['metrics'] = scalar_metrics(metrics)
        if kl:
            per_image['kl'] = np.array(kl)
            row['metrics']['kl'] = float(np.nanmean(per_image['kl']))
        if draws:
            weights = image_weights(size, draws)
            row['draws'] = {
                name: values.tolist()
                for name, values in kept.draws(per_image, weights).items()
            }
        return row

    def _answers(self, size: int) -> Dict[str, np.ndarray]:
        """What a classifier's evaluator has kept of each image."""
        for metric in self.evaluator.metrics:
            if type(metric).__name__ == 'Accuracy':
                right = collected(
                    correct_answers(metric.results).tolist(), size)
                return {'accuracy/top1': np.array(right)} if right else {}
        return {}


def collected(values: list, size: int) -> list:
    """What all ranks have measured, image by image, in the data set's order.

    Args:
        values (list): What this rank has measured of its images.
        size (int): Images of the data set: samplers give the last ranks some
            images twice.

    Returns:
        list: On rank 0 of all images; on the others, nothing.
    """
    # interleaved and cut to the data set, as the metrics are
    return collect_results(values, size, 'cpu') or []


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[], None]]:
    """A progress bar, on rank 0 only: all ranks have as many steps.

    Args:
        steps (int): How many there will be.

    Yields:
        Callable: To be called after every step.
    """
    if not is_main_process():
        yield lambda: None
        return
    bar = ProgressBar(steps)
    try:
        yield bar.update
    finally:  # what follows gets a line of its own
        bar.file.write('\n')
        bar.file.flush()


def row_line(row: dict) -> str:
    """What a row of a curve says, in a line.

    Args:
        row (dict): A row with ``metrics``, of a distortion, of a policy or of
            the clean host.

    Returns:
        str: The line. Of metrics such as ``bbox_mAP`` and ``bbox_mAP_50``
        only the first.

    Example:
        >>> row_line(dict(distortion='gaussian', nrmse=0.5, seed=0,
        ...               metrics={'coco/bbox_mAP': 0.311}))
        'gaussian NRMSE 0.5 seed 0: coco/bbox_mAP 0.311'
    """
    words = [str(row.get('distortion', row.get('policy', 'clean')))]
    if words[0] != 'clean':
        for key, unit in (('nrmse', 'NRMSE'), ('noise_budget', 'NRMSE'),
                          ('mean_bits', 'mean bits'), ('bits', 'bits')):
            if row.get(key) is not None:
                words += [unit, f'{row[key]:g}']
        if row.get('definition', 'rms') != 'rms':
            words.append(row['definition'])
        words += ['valid'] * bool(row.get('valid'))
        if 'seed' in row:
            words += ['seed', str(row['seed'])]
    shown: List[str] = []
    for name in row['metrics']:
        if not any(name.startswith(f'{first}_') for first in shown):
            shown.append(name)
    values = ', '.join(f'{n} {row["metrics"][n]:.4g}' for n in shown)
    return f'{" ".join(words)}: {values or "no metric"}'


def tell_row(row: dict) -> None:
    """Print the line of a row, on rank 0 and at once: a curve takes hours,
    and its output may go to a file."""
    if is_main_process():
        print(row_line(row), flush=True)


def new_evaluator(runner: Runner, loader: DataLoader) -> Evaluator:
    """Another one of ``test_evaluator``, for the data of a loader."""
    evaluator = runner.build_evaluator(
        copy.deepcopy(runner.cfg.test_evaluator))
    evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
    return evaluator


class OperationTest:
    """A host and its estimators, on the test data of a config.

    In a process group, such as :func:`mmfeatjnd.cli.launch.distributed` makes,
    the ranks share the images, and every rank gets the rows of all of them.

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
        clean: accuracy/top1 ...
        >>> [row.get('distortion') for row in rows]  # clean, and with noise
        [None, 'gaussian']
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
            tuple[list, Callable]: The clean predictions, and a function
            ``predict`` from an operation to the predictions under it and the
            run. ``predict.nats()`` returns another one: how far, in nats of
            each image, (B,), the answer under the operation of the last
            ``predict`` is from the clean one.
        """
        data = self.model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data.get('data_samples')
        with torch.no_grad():
            self.use(0)
            known = prepare(self.neck, operations, inputs, samples)
            prefix = PrefixReplay(self.neck)
            memo: Optional[TailMemo] = None  # only whoever asks for nats pays

            def predict(operation: BaseOperation) -> Tuple[list, Run]:
                keeping = nullcontext() if memo is None else memo.record()
                with self.neck.run(operation, **known) as run, \
                        prefix.replay(), keeping:
                    outputs = self.model.predict(inputs, samples)
                return outputs, run

            def answer(passage, proposals=None) -> Likelihood:
                with prefix.replay(), passage:
                    return adapter_of(self.model).likelihood(
                        self.model, inputs, samples, proposals)

            def nats() -> Callable[[BaseOperation], Tensor]:
                nonlocal memo
                memo = TailMemo(self.neck)
                clean = answer(nullcontext())

                def distance(operation: BaseOperation) -> Tensor:
                    # of features that the prediction did not have
                    run = Run(operation, self.neck, **known)
                    changed = answer(memo.replay(run), clean.proposals)
                    return divergence(clean.terms, changed.terms, len(inputs))

                return distance

            with prefix.record():
                clean = self.model.predict(inputs, samples)
            predict.nats = nats
            yield clean, predict

    def measure(self,
                operations: Sequence[Tuple[int, BaseOperation]],
                settings_per_pass: int = 24,
                nats: bool = False,
                draws: int = 0,
                fields: Optional[Sequence[dict]] = None) -> List[dict]:
        """The task metrics under every operation.

        All operations share a pass over the data: an image is loaded and runs
        through the part before the split once, and the rest of the host runs
        once for every operation. A line for each row is printed as soon as it
        is known, at the end of its pass.

        Args:
            operations (Sequence[tuple]): Index of the estimator, and the
                operation.
            settings_per_pass (int): Bounds the memory that the evaluators
                take. Defaults to 24.
            nats (bool): Whether to measure how far the host's answer is from
                the clean one, too: ``kl`` of the metrics, the mean over the
                images of :func:`mmfeatjnd.functional.nats`. It takes what a
                prediction does not compute anyway. Defaults to False.
            draws (int): Number of draws of the bootstrap over images. Rows
                then hold ``draws``, by metric a list of its value on the
                images as they are and on every draw, the same ones in all
                rows. Defaults to 0.
            fields (Sequence[dict], optional): What else the rows hold: of the
                clean host, then of every operation. Defaults to None:
                nothing.

        Returns:
            list[dict]: The metrics of the clean host, then for every
            operation its :meth:`BaseOperation.row` with ``metrics``. The same
            on every rank.
        """
        rows: List[dict] = []
        fields = fields or [{}] * (1 + len(operations))
        # at least the clean host
        for start in range(0, max(len(operations), 1), settings_per_pass):
            chunk = operations[start:start + settings_per_pass]
            for row in self._one_pass(chunk, not rows, nats, draws):
                own = fields[len(rows)]
                rows.append({**own, **row, **own})
                tell_row(rows[-1])
        self.runner.call_hook('after_test_epoch', metrics=rows[0]['metrics'])
        self.runner.call_hook('after_test')
        self.runner.call_hook('after_run')
        return rows

    def _one_pass(self, operations, clean: bool, nats: bool,
                  draws: int) -> Iterator[dict]:
        loader = self.dataloader()
        self.neck.forget()

        def new(operation=None):
            return Setting(new_evaluator(self.runner, loader), operation)

        settings = [(i, new(operation)) for i, operation in operations]
        reference = new()
        with progress_bar(len(loader) * (len(settings) + 1)) as step:
            for batch in loader:
                self._one_batch(batch, settings, step, nats,
                                reference if clean else None)
        size = len(loader.dataset)
        if clean:
            yield reference.row(size, draws=draws)
        for _, setting in settings:
            yield setting.row(size, nats, draws)

    def _one_batch(self, batch: dict, settings: Sequence[Tuple[int, Setting]],
                   step: Callable[[], None], nats: bool,
                   reference: Optional[Setting]) -> None:
        with self.batch(batch, [s.operation
                                for _, s in settings]) as (outputs, predict):
            if reference is not None:
                reference.evaluator.process(outputs, batch)
            step()
            distance = predict.nats() if nats else None
            for i, setting in settings:
                self.use(i)
                outputs, run = predict(setting.operation)
                setting.evaluator.process(outputs, batch)
                setting.measurements.add([run])
                if nats:
                    setting.nats.append(distance(setting.operation))
                step()


def measure_curve(cfg: Config,
                  checkpoint: str,
                  distortions: Sequence[str],
                  nrmse: Sequence[float],
                  seeds: Sequence[int] = (0, ),
                  estimators: Sequence[str] = (),
                  definition: str = 'rms',
                  split: Optional[str] = None,
                  levels: Optional[Sequence[int]] = None,
                  valid: bool = False,
                  nats: bool = False,
                  draws: int = 0,
                  task_metric: Optional[str] = None) -> List[dict]:
    """The task metric for every distortion, NRMSE and seed.

    Args:
        cfg (Config): See :class:`OperationTest`.
        checkpoint (str): See :class:`OperationTest`.
        distortions (Sequence[str]): Names in ``DISTORTIONS``.
        nrmse (Sequence[float]): NRMSE of each image and level, or as
            ``definition`` says.
        seeds (Sequence[int]): Seeds of the noise. A distortion without a
            random part is measured once for each estimator. Defaults to (0,).
        estimators (Sequence[str]): Estimator files; the i-th seed uses the
            i-th file, and their number must be that of the seeds. Defaults
            to (): the checkpoint's.
        definition (str): Definition of the NRMSE, see
            :class:`mmfeatjnd.models.Perturbation`. Defaults to 'rms'.
        split (str, optional): See :class:`OperationTest`. Defaults to None.
        levels (Sequence[int], optional): See :class:`OperationTest`. Defaults
            to None.
        valid (bool): Keep features in the range of the split, see
            :class:`mmfeatjnd.models.Perturbation`. Defaults to False.
        nats (bool): See :meth:`OperationTest.measure`. Defaults to False.
        draws (int): See :meth:`OperationTest.measure`. Defaults to 0.
        task_metric (str, optional): A file of ``tools/estimate_metric.py``,
            see :class:`mmfeatjnd.models.Perturbation`. Defaults to None.

    Returns:
        list[dict]: The rows, see :mod:`mmfeatjnd.evaluation.curve`. The first
        is the clean host.

    Example:
        >>> rows = measure_curve(cfg, checkpoint, ['gaussian'], [0.5])
        Loads checkpoint ...
        clean: accuracy/top1 ...
        gaussian NRMSE 0.5 seed 0: accuracy/top1 ...
        >>> [(row['distortion'], row['nrmse']) for row in rows]
        [('clean', 0.0), ('gaussian', 0.5)]
        >>> round(rows[1]['nrmse_measured'], 3), list(rows[1]['metrics'])
        (0.5, ['accuracy/top1'])
    """
    check_seeds(seeds, estimators)
    test = OperationTest(cfg, checkpoint, estimators, split, levels)
    signed = all(e.mode == 'signed' for e in test.neck.estimators)

    def differs(operation: Perturbation) -> bool:
        distortion = operation.distortion
        return distortion.random or (distortion.needs_jnd
                                     and not signed) or (
                                         operation.needs_jnd
                                         and bool(estimators))

    operations = [(i, Perturbation(name, value, definition, valid, seed,
                                   task_metric))
                  for (i, seed), name, value in product(
                      enumerate(seeds), distortions, nrmse)]
    # a further seed must not measure the same again
    operations = [(i, o) for i, o in operations if i == 0 or differs(o)]
    clean = dict(
        distortion='clean',
        nrmse=0.0,
        nrmse_measured=0.0,
        participation_ratio=0.0,
        seed=0)
    return test.measure(
        operations,
        nats=nats,
        draws=draws,
        fields=[clean] + [{}] * len(operations))


def check_seeds(seeds: Sequence[int], estimators: Sequence[str]) -> None:
    """Raise unless there is one estimator for each seed, or none."""
    if estimators and len(estimators) != len(seeds):
        raise ValueError(f'{len(estimators)} estimators for {len(seeds)} '
                         'seeds: give one for each.')
