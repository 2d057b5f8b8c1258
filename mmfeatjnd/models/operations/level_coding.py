"""One level of one batch on its way through a quantizer."""
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmfeatjnd.functional import (
    Allocation,
    EntropyModel,
    QuantizedLevel,
    code_length,
    fit_entropy_model,
    quantize,
)


class Coded(NamedTuple):
    """What is quantized: the feature itself, or components of it.

    Attributes:
        value (Tensor): (B, ...).
        at (Callable): From the scale of each image, (B,), to the allocation.
        model (EntropyModel, optional): Of the symbols, where the receiver
            knows it. None: it is fitted to them.
    """
    value: Tensor
    at: Callable[[Tensor], Allocation]
    model: Optional[EntropyModel] = None


class LevelCoding:
    """How a level is quantized, as a function of the scale.

    Args:
        feature (Tensor): The feature, (B, ...).
        parts (Sequence[Coded]): What is quantized of it.
        restore (Callable): From the values of the parts to the feature.
        limits (Callable): From the value of a part and its ``at`` to the
            scales between which a budget is looked for.
    """

    def __init__(self, feature: Tensor, parts: Sequence[Coded],
                 restore: Callable[[List[Tensor]], Tensor],
                 limits: Callable[..., Tuple[Tensor, Tensor]]) -> None:
        self.feature = feature
        self.parts = parts
        self._restore = restore
        self._limits = limits

    def quantize(self,
                 scale: Tensor) -> Tuple[List[QuantizedLevel], Tensor]:
        """Symbols, and the feature that a receiver makes of them.

        Args:
            scale (Tensor): (B,).

        Returns:
            tuple: Of every part its :class:`QuantizedLevel`, with a model
            where the receiver knows one; and the feature, float32.
        """
        levels, values = [], []
        for part in self.parts:
            quantized, value = quantize(part.value, part.at(scale))
            levels.append(quantized._replace(
                model=part.model, dtype=self.feature.dtype))
            values.append(value)
        return levels, self._restore(values)

    def limits(self) -> Tuple[Tensor, Tensor]:
        """The scales between which a budget is looked for, (B,) each."""
        found = [self._limits(p.value, p.at) for p in self.parts]
        finest, coarsest = zip(*found)
        return torch.stack(finest).amax(0), torch.stack(coarsest).amax(0)


def level_bits(levels: Sequence[QuantizedLevel]) -> Tensor:
    """Code length of the parts of a level, (B,)."""
    return torch.stack([code_length(x) for x in levels]).sum(0)


def with_models(levels: Sequence[QuantizedLevel]) -> List[QuantizedLevel]:
    """The parts of a level, each with the model that it is coded with."""
    return [fit_entropy_model(x) for x in levels]
