"""A quantized level of features: all that a receiver needs of it."""
from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor

from .steps import Steps


class EntropyModel(NamedTuple):
    """Parameters of the entropy model, integers, (B, C); (B, 1) for
    vectors. See :mod:`mmfeatjnd.functional.entropy`.

    Attributes:
        nonzero (Tensor): Index of pi, 0 where the channel is all zero.
        scale (Tensor): Half octaves: b = base * 2^(scale / 2).
        positive (Tensor): Index of the share of positive signs.
        reference (Tensor): (B, 1), half octaves: the exponent of the token at
            which ``nonzero`` holds.
        form (Tensor): (B, 1): 0, a constant times the odds of firing, or 1,
            times its probability.

    Example:
        >>> one = torch.ones(2, 8, dtype=torch.int32)
        >>> zero = torch.zeros(2, 1, dtype=torch.int32)
        >>> model = EntropyModel(16 * one, 0 * one, 8 * one, zero, zero)
        >>> model.nonzero.shape
        torch.Size([2, 8])
    """
    nonzero: Tensor
    scale: Tensor
    positive: Tensor
    reference: Tensor
    form: Tensor


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
        return self._map(lambda x: x[i:i + 1])

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
