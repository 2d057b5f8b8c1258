"""A quantized level of features: all that a receiver needs of it."""
from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor

from .steps import Steps


class EntropyModel(NamedTuple):
    """Parameters of the entropy model, integers, (B, C), or (1, C) for all
    images; (B, 1) for vectors. See :mod:`mmfeatjnd.functional.entropy`.

    Attributes:
        scale (Tensor): Quarter octaves: s = 2^(scale / 4), in the unit of the
            feature.
        centre (Tensor): Quarters of s: mu = s * centre / 4.
        rectified (Tensor): (B, 1), 0 or 1: nothing is below 0.

    Example:
        >>> zero = torch.zeros(2, 8, dtype=torch.int32)
        >>> model = EntropyModel(zero + 4, zero, zero[:, :1])
        >>> model.scale.shape
        torch.Size([2, 8])
    """
    scale: Tensor
    centre: Tensor
    rectified: Tensor


class QuantizedLevel(NamedTuple):
    """One level of quantized features, with all that a receiver needs.

    Attributes:
        symbols (Tensor): Integer values within +-32767, (B, C, H, W),
            (B, N, C) or (B, C).
        steps (Steps): Their steps.
        dtype (torch.dtype): Dtype of the feature. Defaults to float32.
        model (EntropyModel, optional): What they are coded with. Defaults to
            None: not fitted yet; see
            :func:`mmfeatjnd.functional.fit_entropy_model`.

    Example:
        >>> symbols = torch.tensor([[2.0, -2.0], [0.0, 1.0]])
        >>> level = QuantizedLevel(symbols, Steps(torch.ones(2)))
        >>> level.of_image(1).symbols, level.of_image(1).steps.base
        (tensor([[0., 1.]]), tensor([1.]))
    """
    symbols: Tensor
    steps: Steps
    dtype: torch.dtype = torch.float32
    model: Optional[EntropyModel] = None

    def of_image(self, i: int) -> 'QuantizedLevel':
        """The i-th image of the batch, as a batch of 1."""
        batch = len(self.symbols)
        # a model may be that of all images
        return self._map(lambda x: x[i:i + 1] if len(x) == batch else x)

    def cpu(self) -> 'QuantizedLevel':
        """The same on the CPU, without a gradient."""
        return self._map(lambda x: x.detach().cpu())

    def _map(self, function: Callable[[Tensor], Tensor]) -> 'QuantizedLevel':
        steps = Steps(*(None if x is None else function(x)
                        for x in self.steps))
        model = None
        if self.model is not None:
            model = EntropyModel(*map(function, self.model))
        return QuantizedLevel(
            function(self.symbols), steps, self.dtype, model)
