"""The adapter of a model."""
from torch import nn

from mmfeatjnd.compat import host_library
from .base import HostAdapter
from .mmdet import DetectorAdapter
from .mmpretrain import ClassifierAdapter
from .mmseg import SegmentorAdapter

_ADAPTERS = dict(
    mmdet=DetectorAdapter,
    mmpretrain=ClassifierAdapter,
    mmseg=SegmentorAdapter)


def adapter_of(host: nn.Module) -> HostAdapter:
    """The adapter of a host, by the library that its class comes from.

    Args:
        host (nn.Module): A model of a host library, with FeatJND or plain.

    Returns:
        HostAdapter: What the host's library does in its own way.

    Raises:
        TypeError: The model belongs to none of the host libraries.
    """
    library = host_library(host)
    if library is None:
        raise TypeError(
            f'{type(host).__name__} is no model of '
            f'{", ".join(_ADAPTERS)}: FeatJND does not know how it predicts.')
    return _ADAPTERS[library]()
