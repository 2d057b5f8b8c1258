"""What a receiver of distorted images must offer."""
from abc import abstractmethod
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Union

from mmengine.model import BaseModule
from torch import Tensor

from mmfeatjnd.models.hosts import build_host
from mmfeatjnd.utils import read_config
from .weights import load_weights


class TaskReference(NamedTuple):
    """What a task says of the clean images.

    Attributes:
        labels (Any): Its predictions, the truth from then on.
        attention (Tensor): How much the task looks at each place,
            (B, 1, h, w), in [0, 1].
    """
    labels: Any
    attention: Tensor


class BaseTask(BaseModule):
    """A frozen model of a host library, as the receiver of images.

    Images are (B, C, H, W), pixels in [0, 255], float32, in the order of
    channels in which the host's own data pipeline loads them; the host's data
    preprocessor normalizes them.

    Args:
        config (str | dict): The host's config, a file or its content.
        checkpoint (str, optional): The host's weights. Defaults to None: what
            the config initializes it with.
        name (str, optional): Name of the task in metrics. Defaults to None:
            that of the config file, or of the host's class.

    Raises:
        ValueError: The config has no model.
    """

    def __init__(self,
                 config: Union[str, dict],
                 checkpoint: Optional[str] = None,
                 name: Optional[str] = None) -> None:
        super().__init__()
        cfg = read_config(config)
        if 'model' not in cfg:
            raise ValueError(f'{type(self).__name__}: the config {config!r} '
                             'has no `model`. Give that of the host.')
        self.host = build_host(cfg)
        self.host.requires_grad_(False)
        self.checkpoint = checkpoint
        self.name = name or (
            Path(cfg.filename).stem
            if cfg.filename else type(self.host).__name__)
        self.train(self.training)

    def init_weights(self) -> None:
        """Load the checkpoint. Called before training, not before testing:
        the checkpoint of the whole model has the host's weights.

        Raises:
            FileNotFoundError: There is no such checkpoint.
            CheckpointError: It is of another config.
        """
        if self.checkpoint is None:
            self.host.init_weights()
            return
        load_weights(
            self.host, self.checkpoint, f'{type(self).__name__} {self.name!r}',
            'Train the model with its own config, or name its checkpoint in '
            '`tasks` of the config.')

    def train(self, mode: bool = True) -> 'BaseTask':
        """The host is never in training mode."""
        super().train(mode)
        self.host.eval()
        return self

    @abstractmethod
    def reference(self, images: Tensor,
                  data_samples: Optional[list]) -> TaskReference:
        """The host's predictions on clean images, without gradient."""

    @abstractmethod
    def loss(self, images: Tensor, reference: TaskReference) -> Tensor:
        """How far the host's predictions on distorted images are from the
        reference, a scalar."""

    @abstractmethod
    def compare(self, images: Tensor,
                reference: TaskReference) -> Dict[str, Tensor]:
        """``agreement`` of the host's predictions on distorted images with
        the reference, (B,) in [0, 1], and what else a metric may want."""
