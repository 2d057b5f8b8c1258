"""How a host's test pipeline reads images."""
import copy
from typing import List

from mmengine.config import Config

from mmfeatjnd.utils import ConfigError, type_name


def pipeline_dataset(cfg: Config) -> dict:
    """The innermost data set of a config's test: what has its pipeline; of
    several the first."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and ('dataset' in dataset
                                         or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset


def image_pipeline(cfg: Config) -> List[dict]:
    """The test pipeline of a config for images without annotations.

    Args:
        cfg (Config): The config.

    Returns:
        list[dict]: Its transforms but those that load annotations.

    Raises:
        ConfigError: It has none, or does not begin with loading an image file.

    Example:
        >>> [transform.type for transform in image_pipeline(cfg)]
        ['LoadImageFromFile', 'PackInputs']
    """
    pipeline = copy.deepcopy(list(pipeline_dataset(cfg).get('pipeline') or []))
    names = [str(type_name(t)) for t in pipeline]
    if 'LoadImageFromFile' not in names[:1]:
        raise ConfigError(
            'the test pipeline of the config must begin with '
            f'LoadImageFromFile, but it is {names}: set '
            'test_dataloader.dataset.pipeline to one that reads image files')
    return [
        t for t, n in zip(pipeline, names)
        if not (n.startswith('Load') and 'Annotation' in n)
    ]
