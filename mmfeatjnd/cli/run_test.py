"""The test of ``tools/test.py``, and what it writes."""
import argparse
import os
import os.path as osp

from mmengine.dist import get_dist_info
from mmengine.runner import Runner

from mmfeatjnd.utils import atomic_path, config_library, log
from .console import UsageError


def run_test(runner: Runner, args: argparse.Namespace) -> dict:
    """Test, and write what ``--out`` asks for.

    Args:
        runner (Runner): The runner.
        args (argparse.Namespace): Arguments with ``out`` and ``out_item``.

    Returns:
        dict: The metrics.

    Raises:
        UsageError: If it was not written.
        WriteError: If it cannot be written.
    """
    host = config_library(runner.cfg)
    metrics_only = args.out_item == 'metrics'
    if not args.out:
        return runner.test()
    if host == 'mmseg' and not metrics_only:
        metrics = runner.test()
        written = osp.isdir(args.out) and bool(os.listdir(args.out))
        _tell_written(args.out, written, runner)
        return metrics
    with atomic_path(args.out) as path:
        if not metrics_only:
            if host == 'mmdet':
                from mmdet.evaluation import DumpDetResults as Dump
            else:
                from mmengine.evaluator import DumpResults as Dump
            predictions = Dump(out_file_path=path)
            runner.test_evaluator.metrics.append(predictions)
        metrics = runner.test()
        if not metrics_only and predictions.results:
            # the evaluator, as MultiDatasetsEvaluator, asks its own only
            predictions.evaluate(len(runner.test_dataloader.dataset))
        if metrics_only and get_dist_info()[0] == 0:
            from mmengine.fileio import dump
            dump(metrics, path)
        written = osp.isfile(path)
    _tell_written(args.out, written, runner)
    return metrics


def _tell_written(out: str, written: bool, runner: Runner) -> None:
    if written:
        log(f'written: {out}')
    elif get_dist_info()[0] == 0:
        evaluator = type(runner.test_evaluator).__name__
        raise UsageError(
            f'nothing is written to {out}: the test ran, but {evaluator} '
            'hands no predictions to its metrics')
