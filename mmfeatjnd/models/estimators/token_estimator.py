"""The estimator for tokens and vectors."""
from torch import Tensor, nn

from mmfeatjnd.registry import MODELS
from .base_estimator import BaseEstimator


@MODELS.register_module()
class TokenEstimator(BaseEstimator):
    """A token-wise bottleneck for features (B, N, C) or (B, C).

    Linear reduction, ``num_layers`` residual linear layers with the mean of
    all tokens added, linear expansion: it works for any number of tokens and
    costs no attention. The architecture is ours.

    Args:
        in_channels (int): Channels C of the feature.
        hidden_channels (int): Width of the bottleneck. Defaults to 64.
        num_layers (int): Number of hidden layers. Defaults to 2.
        **kwargs: See :class:`BaseEstimator`.
    """

    ndims = (2, 3)
    grid = (256, )
    advice = ('It takes tokens (B, N, C) or vectors (B, C): use '
              "estimator=dict(type='mmfeatjnd.ConvEstimator') for maps.")

    def __init__(self,
                 in_channels: int,
                 hidden_channels: int = 64,
                 num_layers: int = 2,
                 **kwargs) -> None:
        super().__init__(in_channels, **kwargs)
        self.reduce = nn.Linear(in_channels, hidden_channels)
        self.layers = nn.ModuleList(
            nn.Linear(hidden_channels, hidden_channels)
            for _ in range(num_layers))
        self.contexts = nn.ModuleList(
            nn.Linear(hidden_channels, hidden_channels)
            for _ in range(num_layers))
        self.expand = nn.Linear(hidden_channels, self.out_channels)
        self.act = nn.ReLU()
        self.init_level(hidden_channels)

    def body(self, x: Tensor) -> Tensor:
        x = self.act(self.reduce(x))  # (B, N, hidden) or (B, hidden)
        for layer, context in zip(self.layers, self.contexts):
            image = x.mean(1, keepdim=True) if x.dim() == 3 else x
            x = x + self.act(layer(x) + context(image))
        return self.with_level(self.expand(x), x)
