"""The estimator for maps."""
from torch import Tensor, nn

from mmfeatjnd.registry import MODELS
from .base_estimator import BaseEstimator


@MODELS.register_module()
class ConvEstimator(BaseEstimator):
    """A bottleneck of convolutions for features (B, C, H, W).

    1x1 reduction, ``num_convs`` residual 3x3 convolutions of growing dilation
    with the image's mean added (what is harmless depends on the whole image),
    1x1 expansion. No normalization layers, so batch size and image size do
    not matter. The architecture is ours.

    Args:
        in_channels (int): Channels C of the feature.
        hidden_channels (int): Width of the bottleneck. Defaults to 64.
        num_convs (int): Number of 3x3 convolutions. Defaults to 2.
        **kwargs: See :class:`BaseEstimator`.
    """

    ndims = (4, )
    advice = ('It takes maps (B, C, H, W): use '
              "estimator=dict(type='mmfeatjnd.TokenEstimator') for tokens.")

    def __init__(self,
                 in_channels: int,
                 hidden_channels: int = 64,
                 num_convs: int = 2,
                 **kwargs) -> None:
        super().__init__(in_channels, **kwargs)
        self.reduce = nn.Conv2d(in_channels, hidden_channels, 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(
                hidden_channels, hidden_channels, 3, padding=d, dilation=d)
            for d in (2**i for i in range(num_convs)))
        self.contexts = nn.ModuleList(
            nn.Linear(hidden_channels, hidden_channels)
            for _ in range(num_convs))
        self.expand = nn.Conv2d(hidden_channels, self.out_channels, 1)
        self.act = nn.ReLU()
        self.init_level(hidden_channels)

    def body(self, x: Tensor) -> Tensor:
        x = self.act(self.reduce(x))  # (B, hidden, H, W)
        for conv, context in zip(self.convs, self.contexts):
            image = context(x.mean((2, 3)))[..., None, None]
            x = x + self.act(conv(x) + image)
        return self.with_level(self.expand(x), x)
