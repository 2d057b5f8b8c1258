"""What a receiver can know of the padding of a map that is not sent."""
from typing import Dict, Optional, Sequence

import torch
from torch import Tensor

from mmfeatjnd.functional import to_channels_first
from mmfeatjnd.hosts import adapter_of
from .splits import run_until_split


def padding_canvas(neck, inputs: Tensor, data_samples: Optional[list],
                   content: Optional[Sequence[tuple]]) -> Dict[int, Tensor]:
    """Features of an input that is padding alone.

    Away from a picture, by the receptive field of the split, they are those
    of its padding. 0 in their place is another picture for the host: of
    YOLOX-Nano, split at ``stage2``, it costs 31 nats an image, and these
    0.03 where two tokens around the picture are sent.

    Args:
        neck (FeatJNDNeck): It knows its host, and keeps what was found for
            the next input of this size.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.
        content (Sequence[tuple], optional): Where images are in the input,
            see :meth:`mmfeatjnd.hosts.HostAdapter.content`.

    Returns:
        dict[int, Tensor]: By level (1, C, h, w); nothing where nothing is
        padded.
    """
    padded = [i for i, c in enumerate(content or ()) if c[:2] != c[2:4]]
    if not padded:
        return {}
    key = (*inputs.shape[1:], inputs.dtype, inputs.device)
    if key not in neck.canvases:
        i = padded[0]
        # the last pixel is one of the padding
        canvas = inputs[i:i + 1, :, -1:, -1:].expand_as(inputs[:1])
        neck.canvases[key] = _features(
            neck, canvas.contiguous(), data_samples and data_samples[i:i + 1])
    return neck.canvases[key]


def _features(neck, inputs: Tensor,
              data_samples: Optional[list]) -> Dict[int, Tensor]:
    found: Dict[int, Tensor] = {}

    def keep(feature: Tensor, level: int) -> Tensor:
        found[level] = to_channels_first(
            feature, neck.layout_of(feature, level)).clone()
        return feature

    with torch.no_grad():
        run_until_split(
            neck, keep, neck.active_levels,
            lambda: adapter_of(neck.host).predict(neck.host, inputs,
                                                  data_samples))
    return {i: x for i, x in found.items() if x.dim() == 4}


def filled(canvas: Optional[Dict[int, Tensor]], level: int,
           like: Tensor) -> Tensor:
    """A map of padding.

    Args:
        canvas (dict[int, Tensor], optional): See :func:`padding_canvas`. Of
            another size, its middle counts.
        level (int): The level.
        like (Tensor): (B, C, H, W), a map of it.

    Returns:
        Tensor: Like it, in new memory; 0 where nothing is known.
    """
    found = (canvas or {}).get(level)
    if found is None:
        return torch.zeros_like(like)
    if found.shape[2:] != like.shape[2:]:
        h, w = (n // 2 for n in found.shape[2:])
        found = found[:, :, h:h + 1, w:w + 1]
    return torch.zeros_like(like).copy_(found)
