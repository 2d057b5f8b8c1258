"""What a receiver of distorted images must offer."""
from abc import abstractmethod
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Union

from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import Tensor

from mmfeatjnd.functional.images import Images
from mmfeatjnd.models.hosts import build_host, check_checkpoint


class Reference(NamedTuple):
    """What a task says of the clean images.

    Attributes:
        labels (Any): Its predictions, the truth from then on.
        attention (Tensor | list[Tensor]): (B, 1, h, w), or (1, h, w) each, in
            [0, 1]: how much the task looks at each place.
    """
    labels: Any
    attention: Images


class BaseTask(BaseModule):
    """A frozen model of a host library, as the receiver of images.

    Images are pixels in [0, 255], float32, in the order of channels in which
    the host's own data pipeline loads them; the host's data preprocessor
    normalizes them.

    Args:
        config (str | dict): The host's config, a file or its content.
        checkpoint (str, optional): The host's weights. Defaults to None: what
            the config initializes it with.
        name (str, optional): Of the task in metrics. Defaults to None: that
            of the config file.
    """

    def __init__(self,
                 config: Union[str, dict],
                 checkpoint: Optional[str] = None,
                 name: Optional[str] = None) -> None:
        super().__init__()
        from_file = isinstance(config, (str, Path))
        cfg = Config.fromfile(config) if from_file else Config(dict(config))
        if 'model' not in cfg:
            raise ValueError(f'{type(self).__name__}: the config {config!r} '
                             'has no `model`. Give that of the host.')
        self.host = build_host(cfg)
        self.host.requires_grad_(False)
        self.checkpoint = checkpoint
        self.name = name or (
            Path(config).stem if from_file else type(self.host).__name__)
        self.train(self.training)

    def init_weights(self) -> None:
        """Load the checkpoint. Called before training, not before testing:
        the checkpoint of the whole model has the host's weights."""
        if self.checkpoint is None:
            self.host.init_weights()
            return
        check_checkpoint(
            self.checkpoint, f'{type(self).__name__} {self.name!r}',
            'Train the model with its own config, or name its checkpoint in '
            '`tasks` of the config.')
        load_checkpoint(
            self.host, self.checkpoint, map_location='cpu', strict=True)

    def train(self, mode: bool = True) -> 'BaseTask':
        """The host is never in training mode."""
        super().train(mode)
        self.host.eval()
        return self

    @abstractmethod
    def reference(self, images: Images,
                  data_samples: Optional[list]) -> Reference:
        """The host's predictions on clean images, without gradient."""

    @abstractmethod
    def loss(self, images: Images, reference: Reference) -> Tensor:
        """How far the host's predictions on distorted images are from the
        reference, a scalar."""

    @abstractmethod
    def compare(self, images: Images,
                reference: Reference) -> Dict[str, Tensor]:
        """``agreement`` of the host's predictions on distorted images with
        the reference, (B,) in [0, 1], and what else a metric may want."""
