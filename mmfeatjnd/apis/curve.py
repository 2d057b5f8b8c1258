"""Measure a tolerance curve in few passes over the data."""
import copy
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import List, Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from mmfeatjnd.functional import DETERMINISTIC, NEEDS_JND
from mmfeatjnd.models import Perturbation, Prefix, attached, find_neck
from .estimator_file import load_estimator
from .launch import build_runner


class _Setting:
    """One row of the curve: a distortion, its own evaluator, and sums."""

    def __init__(self, evaluator, operation: Optional[Perturbation] = None):
        self.evaluator = evaluator
        self.operation = operation
        self.measured: List[torch.Tensor] = []

    def row(self, size: int) -> dict:
        # the tables that COCO's tools print would bury the progress bar
        with redirect_stdout(StringIO()):
            metrics = self.evaluator.evaluate(size)
        row = dict(
            distortion='clean',
            nrmse=0.0,
            nrmse_measured=0.0,
            participation_ratio=0.0,
            seed=0)
        if self.operation is not None:
            mean = torch.cat(self.measured).mean(0)
            row = dict(
                distortion=self.operation.distortion,
                nrmse=self.operation.strength,
                nrmse_measured=float(mean[0]),
                participation_ratio=float(mean[1]),
                seed=self.operation.seed)
        row['metrics'] = {k: float(v) for k, v in metrics.items()}
        return row


def measure_curve(cfg: Config,
                  checkpoint: str,
                  distortions: Sequence[str],
                  strengths: Sequence[float],
                  seeds: Sequence[int] = (0, ),
                  estimators: Sequence[str] = (),
                  definition: str = 'rms',
                  settings_per_pass: int = 24) -> List[dict]:
    """The task metric for every distortion, strength and seed.

    All settings share a pass over the data: an image is loaded and runs
    through the part before the split once, and the rest of the host runs once
    for every setting.

    Args:
        cfg (Config): A config with a :class:`FeatJNDNeck`; its test data
            loader and evaluator are used.
        checkpoint (str): Host and estimator, or the host alone when
            ``estimators`` are given.
        distortions (Sequence[str]): Keys of
            :data:`mmfeatjnd.functional.DISTORTIONS`.
        strengths (Sequence[float]): NRMSE of each image and level.
        seeds (Sequence[int]): Seeds of the noise. A distortion without a
            random part is measured once for each estimator. Defaults to (0,).
        estimators (Sequence[str]): Estimator files; the i-th seed uses the
            i-th file, and their number must be that of the seeds. Defaults
            to (): the checkpoint's.
        definition (str): Of the NRMSE. Defaults to 'rms'.
        settings_per_pass (int): Bounds the memory that the evaluators take.
            Defaults to 24.

    Returns:
        list[dict]: The rows, see :mod:`mmfeatjnd.evaluation.curve`. The first
        is the clean host.
    """
    if estimators and len(estimators) != len(seeds):
        raise ValueError(f'{len(estimators)} estimators for {len(seeds)} '
                         'seeds: give one for each.')
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'No checkpoint at {checkpoint}')
    cfg = copy.deepcopy(cfg)
    cfg.load_from = checkpoint
    cfg.custom_hooks = [
        h for h in cfg.get('custom_hooks', [])
        if h['type'] != 'mmfeatjnd.PerturbationHook'
    ]
    runner = build_runner(cfg)
    runner.load_or_resume()
    model = runner.model.module if is_model_wrapper(
        runner.model) else runner.model
    neck = find_neck(model)
    states = []
    for file in estimators:  # read, and checked against the host, once
        load_estimator(model, file)
        states.append(copy.deepcopy(neck.estimators.state_dict()))
    signed = neck.estimators[0].mode == 'signed'
    operations = [
        (i, Perturbation(distortion, strength, definition, seed))
        for (i, seed), distortion, strength in product(
            enumerate(seeds), distortions, strengths)
        # a further seed must not measure the same again
        if i == 0 or distortion not in DETERMINISTIC or (
            distortion in NEEDS_JND and (estimators or not signed))
    ]
    for _, operation in operations:
        operation.check(neck)
    rows: List[dict] = []
    for start in range(0, len(operations), settings_per_pass):
        chunk = operations[start:start + settings_per_pass]
        rows += _one_pass(runner, model, chunk, states, clean=not rows)
    return rows


@torch.no_grad()
def _one_pass(runner: Runner, model, operations, states,
              clean: bool) -> List[dict]:
    neck = find_neck(model)
    loader = runner.build_dataloader(runner.cfg.test_dataloader)

    def new(operation=None):
        evaluator = runner.build_evaluator(
            copy.deepcopy(runner.cfg.test_evaluator))
        evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
        return _Setting(evaluator, operation)

    settings = [(i, new(operation)) for i, operation in operations]
    reference = new()
    model.eval()
    bar = ProgressBar(len(loader) * (len(settings) + 1))
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        sensitivity = None
        if any(s.operation.needs_sensitivity for _, s in settings):
            sensitivity = model.sensitivity(inputs, samples)
        prefix = Prefix(model, neck)
        with attached(model, neck):
            with prefix.record():
                outputs = model.predict(inputs, samples)
            if clean:
                reference.evaluator.process(outputs, batch)
            bar.update()
            loaded = None
            for i, setting in settings:
                if states and loaded != i:
                    neck.estimators.load_state_dict(states[i])
                    loaded = i
                setting.operation.start(samples, len(inputs), sensitivity)
                with neck.operating(setting.operation), prefix.replay():
                    outputs = model.predict(inputs, samples)
                setting.evaluator.process(outputs, batch)
                setting.measured.append(
                    torch.stack(
                        list(setting.operation.measured().values()),
                        1).cpu())
                bar.update()
    size = len(loader.dataset)
    rows = [reference.row(size)] if clean else []
    return rows + [setting.row(size) for _, setting in settings]
