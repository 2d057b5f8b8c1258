"""Test and validate a host with quantized features."""
from typing import Optional, Sequence

from mmfeatjnd.models import Quantization
from mmfeatjnd.registry import HOOKS
from .operation_hook import OperationHook


@HOOKS.register_module()
class QuantizationHook(OperationHook):
    """Quantize the features at the split, and count what they cost.

    In ``tools/test.py`` and in validation. Beside the task metrics stand, as
    means over the images, ``jnd/nrmse`` (measured), ``jnd/bits_per_element``
    (code length of the entropy model), ``jnd/coded_bytes`` (the whole stream
    of an image, as :func:`mmfeatjnd.coding.encode_image` writes it) and
    ``jnd/coded_bits_per_element``. All policies send their steps, and the
    stream counts them: a decoder needs neither policy nor estimator.

    Args:
        estimator (str, optional): A file of
            :func:`mmfeatjnd.apis.save_estimator`, loaded onto the host.
            Defaults to None: the estimator of the checkpoint.
        split (str, optional): The split point of a plain host, see
            :func:`mmfeatjnd.models.neck_at`. Defaults to None: the policy's,
            if it is a plan; the config's; 'backbone' for a plain host.
        levels (Sequence[int], optional): The levels of a plain host. Defaults
            to None: the plan's; all that the split emits.
        **kwargs: See :class:`mmfeatjnd.models.Quantization`: ``policy`` and
            one of ``scale``, ``noise_budget``, ``bits`` and ``tolerance``.
    """

    def __init__(self,
                 estimator: Optional[str] = None,
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None,
                 **kwargs) -> None:
        operation = Quantization(**kwargs)
        if split is None and levels is None:
            split, levels = operation.policy.place
        super().__init__(operation, estimator, split, levels)
