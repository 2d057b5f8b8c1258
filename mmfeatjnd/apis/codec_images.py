"""Images read for a host as its test pipeline reads them."""
import copy
from pathlib import Path
from typing import List, Optional, Tuple, Union

from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from mmfeatjnd.utils import ConfigError, type_name
from .codec_sides import CodecError, one_line


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
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and ('dataset' in dataset
                                         or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    pipeline = copy.deepcopy(list(dataset.get('pipeline') or []))
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


class ImageReader:
    """Reads an image as the host's test pipeline does.

    Args:
        cfg (Config): The host's config.
        data_preprocessor (nn.Module): The host's.
    """

    def __init__(self, cfg: Config, data_preprocessor: nn.Module) -> None:
        self.cfg = cfg
        self.data_preprocessor = data_preprocessor
        self._pipeline: Optional[Compose] = None

    def __call__(self, path: Union[str, Path]) -> Tuple[Tensor, list]:
        """Read an image.

        Args:
            path (str | Path): The image.

        Returns:
            tuple: Inputs (1, 3, H, W) and one data sample, without
            annotations.

        Raises:
            ConfigError: See :func:`image_pipeline`.
            CodecError: The image cannot be read.
        """
        if self._pipeline is None:
            self._pipeline = Compose(image_pipeline(self.cfg))
        try:
            data = self._pipeline(dict(img_path=str(path)))
        except Exception as error:  # whatever a transform may raise
            raise CodecError(f'{path}: the image cannot be read by the test '
                             f'pipeline ({one_line(error)})') from error
        data = self.data_preprocessor(pseudo_collate([data]), False)
        return data['inputs'], data['data_samples']
