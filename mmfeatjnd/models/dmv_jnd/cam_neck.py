"""Zhou's class activation maps on a classifier of MMPretrain."""
from typing import Sequence, Tuple, Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatjnd.registry import MODELS


@MODELS.register_module()
class CAMNeck(BaseModule):
    """Convolutions and global average pooling, so that a linear head on top
    has class activation maps (Zhou et al., arXiv 1512.04150).

    Zhou et al. put one convolution of 1024 channels on VGG-16's last one and
    two of 512 on AlexNet's; ResNet and DenseNet need none.

    Args:
        in_channels (int): Channels of the backbone's last output.
        widths (Sequence[int]): Channels of the 3x3 convolutions, each with a
            ReLU. Defaults to (): none.
        groups (int): Groups of the convolutions. Defaults to 2: Zhou's.
        dropout (float): Probability of the dropout before the head. Defaults
            to 0; Zhou's: 0.5 with convolutions.
        init_cfg (dict, optional): Config of the initialization. Defaults to
            None: PyTorch's own.
    """

    def __init__(self,
                 in_channels: int,
                 widths: Sequence[int] = (),
                 groups: int = 2,
                 dropout: float = 0.0,
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        layers = []
        for width in widths:
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=1, groups=groups),
                nn.ReLU(inplace=True)
            ]
            in_channels = width
        self.convs = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)

    def feature_map(self, inputs: Union[Tensor, Tuple[Tensor]]) -> Tensor:
        """What is pooled, (B, K, h, w).

        Args:
            inputs (Tensor | tuple[Tensor]): What the backbone returns; of
                several outputs the last.
        """
        x = inputs if isinstance(inputs, Tensor) else inputs[-1]
        return self.convs(x)

    def forward(self, inputs: Union[Tensor, Tuple[Tensor]]) -> Tuple[Tensor]:
        """The pooled features, ((B, K), ), for a linear head."""
        return (self.dropout(self.feature_map(inputs).mean((2, 3))), )
