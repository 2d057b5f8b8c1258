"""Predictions written as ``tools/test.py --out`` does."""
import logging
from pathlib import Path
from typing import Any, Iterable, Union

from mmengine.config import Config
from mmengine.fileio import dump

from mmfeatjnd.evaluation.predictions import Annotations
from mmfeatjnd.utils import atomic_path, config_library, log


def write_predictions(cfg: Config, predictions: Iterable[Any],
                      path: Union[str, Path]) -> None:
    """Write predictions as ``tools/test.py --out`` does.

    An image that is in the config's test set gets its id and its annotations,
    so that the hosts' own tools can score the file.

    Args:
        cfg (Config): The config.
        predictions (Iterable): What :meth:`mmfeatjnd.apis.FeatureCodec.decode`
            returned.
        path (str | Path): A pickle file, written atomically: a list of dicts
            on the CPU. The scores of every class at every pixel of
            MMSegmentation are left out.

    Raises:
        WriteError: The file cannot be written.
    """
    if config_library(cfg) == 'mmdet':
        from mmdet.evaluation import DumpDetResults as Dump
    else:
        from mmengine.evaluator import DumpResults as Dump
    metric = Dump(out_file_path=str(path))
    truth = Annotations(cfg)
    unknown = 0
    for prediction in predictions:
        unknown += not truth.add_to(prediction)
        row = prediction.to_dict()
        row.pop('seg_logits', None)
        metric.process({}, [row])
    with atomic_path(path) as partial:
        dump(metric.results, partial)
    if unknown:
        log(f'{unknown} of {len(metric.results)} images are not in the '
            'test set of the config: they have no annotations to be '
            'scored by', logging.WARNING)
