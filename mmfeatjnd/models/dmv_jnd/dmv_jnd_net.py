"""DMV-JND-NET's hybrid autoencoder."""
import math
from typing import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatjnd.registry import MODELS


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after), nn.ReLU(inplace=True))


@MODELS.register_module()
class DMVJNDNet(BaseModule):
    r"""The E-D of DMV-JND (Jin et al., arXiv 2102.08168, eq. 3): from an image
    and its attention to the JND.

    The paper's: the image stacked with the merged CAM, an encoder of
    convolutions and 2x2 max-pooling, a decoder of large-stride deconvolutions,
    batch normalization and zero padding. Widths, depth and strides are in a
    figure that is not in its text; they, and the tanh that bounds the JND, are
    ours.

    Args:
        in_channels (int): Channels of the image. Defaults to 3.
        widths (Sequence[int]): Channels after each pooling. Defaults to
            (64, 128, 256).
        convs (int): Convolutions before each pooling. Defaults to 2.
        strides (Sequence[int]): Strides of the deconvolutions; their product
            is that of the poolings, 2 ** len(widths). Defaults to (4, 2).
        bound (float): |e| stays below this, in the unit of the normalized
            image: [-1, 1] with mean and standard deviation 0.5. Defaults to
            1.
        init_cfg (dict, optional): Config of the initialization. Defaults to
            None: PyTorch's own.
    """

    def __init__(self,
                 in_channels: int = 3,
                 widths: Sequence[int] = (64, 128, 256),
                 convs: int = 2,
                 strides: Sequence[int] = (4, 2),
                 bound: float = 1.0,
                 init_cfg=None) -> None:
        super().__init__(init_cfg)
        self.stride = 2**len(widths)
        product = math.prod(strides)
        if product != self.stride:
            raise ValueError(
                f'DMVJNDNet: {len(widths)} poolings divide the image by '
                f'{self.stride}, but the strides {tuple(strides)} multiply it '
                f'by {product}')
        self.in_channels = in_channels
        self.bound = bound
        layers, before = [], in_channels + 1
        for width in widths:
            for _ in range(convs):
                layers.append(_conv(before, width))
                before = width
            layers.append(nn.MaxPool2d(2))
        self.encoder = nn.Sequential(*layers)
        layers = []
        for stride, after in zip(strides, [*widths[::-1][1:], widths[0]]):
            layers += [
                nn.ConvTranspose2d(
                    before, after, stride, stride=stride, bias=False),
                nn.BatchNorm2d(after), nn.ReLU(inplace=True)
            ]
            before = after
        self.decoder = nn.Sequential(
            *layers, nn.Conv2d(before, in_channels, 3, padding=1))

    def forward(self, image: Tensor, attention: Tensor) -> Tensor:
        """Eq. (3).

        Args:
            image (Tensor): x, (B, C, H, W), normalized; H and W at least the
                product of the strides.
            attention (Tensor): c, (B, 1, H, W), in [0, 1].

        Returns:
            Tensor: e, the shape of the image.

        Raises:
            ValueError: Another number of channels, or an image that is too
                small.
        """
        self.check(image)
        size = image.shape[-2:]
        x = torch.cat([image, attention], 1)
        # to whole strides, and back
        missing = [-n % self.stride for n in size]
        x = F.pad(x, (0, missing[1], 0, missing[0]), mode='replicate')
        e = self.decoder(self.encoder(x))[..., :size[0], :size[1]]
        return self.bound * e.tanh()

    def check(self, image: Tensor) -> None:
        """Raise a ValueError unless the image has the right number of
        channels and is large enough."""
        channels, *size = image.shape[-3:]
        if channels != self.in_channels:
            raise ValueError(
                f'DMVJNDNet expects {self.in_channels} channels, but got '
                f'images with {channels}: convert them when they are '
                'loaded, e.g. LoadImageFromFile(color_type=...)')
        if min(size) < self.stride:
            raise ValueError(
                f'DMVJNDNet divides images by {self.stride}, but got one of '
                f'{tuple(size)} pixels: enlarge it, or use fewer widths')
