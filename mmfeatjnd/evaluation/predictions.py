"""Predictions compared, and joined with what they are scored by."""
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmfeatjnd.utils import config_library


def same_prediction(prediction: Any, expected: Any) -> bool:
    """Whether all that a prediction holds is equal to what is expected, to
    the last bit; NaN is not."""
    a, b = (_plain(x) for x in (prediction, expected))
    if isinstance(a, dict):
        return isinstance(b, dict) and all(
            k in b and same_prediction(v, b[k]) for k, v in a.items()
            if k != 'img_path')
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(
            same_prediction(x, y) for x, y in zip(a, b))
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and a == b


def _plain(x: Any) -> Any:
    x = getattr(x, 'tensor', x)  # boxes
    return x.to_dict() if isinstance(x, BaseDataElement) else x


class Annotations:
    """Who an image is, and its ground truth, by the config's test set.

    Args:
        cfg (Config): A config, whose ``test_dataloader`` counts.
    """

    def __init__(self, cfg: Config) -> None:
        self.dataset = None
        self.indices: Dict[str, List[Tuple[tuple, int]]] = defaultdict(list)
        dataset = (cfg.get('test_dataloader') or {}).get('dataset')
        with DefaultScope.overwrite_default_scope(config_library(cfg)), \
                suppress(OSError, KeyError, AttributeError, TypeError):
            # without the data set's files there is nothing to score by
            self.dataset = DATASETS.build(dataset)
            for i in range(len(self.dataset)):
                parts = Path(self.dataset.get_data_info(i)['img_path']).parts
                self.indices[parts[-1]].append((parts, i))

    def add_to(self, prediction: Any) -> bool:
        """Give a prediction the id and the annotations of its image.

        Args:
            prediction (BaseDataElement): Prediction with ``img_path``; edited
                in place.

        Returns:
            bool: Whether exactly one image of the test set has this name;
            else nothing is added.
        """
        name = Path(prediction.img_path).parts
        found = [
            i for parts, i in self.indices.get(name[-1], ())
            if parts[-len(name):] == name
        ]
        if len(found) != 1:
            return False
        sample = self.dataset[found[0]]['data_samples']
        known = prediction.metainfo
        prediction.set_metainfo(
            {k: v for k, v in sample.metainfo.items() if k not in known})
        for key in sample.keys():
            if key.startswith('gt_'):
                prediction.set_field(getattr(sample, key), key)
        return True
