"""An operation in every pass that somebody else makes."""
from contextlib import contextmanager
from typing import Iterator, List, Optional, Sequence

import torch
from torch import Tensor

from mmfeatjnd.functional import uncertainty
from mmfeatjnd.hosts import adapter_of
from .canvas import padding_canvas
from .necks.featjnd_neck import FeatJNDNeck
from .operations import BaseOperation
from .readers import reader_metrics
from .reading import find_read_levels
from .run import Run
from .sensitivity import task_sensitivity


def prepare(neck: FeatJNDNeck, operations: Sequence[BaseOperation],
            inputs: Tensor, data_samples: Optional[list]) -> dict:
    """What runs of operations on a batch need to know.

    Args:
        neck (FeatJNDNeck): It knows its host.
        operations (Sequence[BaseOperation]): The operations.
        inputs (Tensor): (B, 3, H, W), as the host takes them.
        data_samples (list, optional): The host's data samples.

    Returns:
        dict: Arguments of :meth:`FeatJNDNeck.run`.

    Raises:
        CheckpointError: An operation needs estimators that were never trained.
    """
    host = neck.host
    if neck.read_levels is None:
        find_read_levels(neck, inputs, data_samples)
    waiting = [o for o in operations if o.needs_readers]
    if waiting:
        metrics = reader_metrics(neck, inputs, data_samples)
        for operation in waiting:
            operation.know_readers(metrics)
    for operation in operations:
        neck.check(operation)
    sensitivity = None
    if any(o.needs_sensitivity for o in operations):
        sensitivity = task_sensitivity(neck, inputs, data_samples)
    detections = None
    if any(o.needs_detections for o in operations):
        detections = adapter_of(host).boxes(host, inputs, data_samples)
    unsure = None
    if any(o.needs_uncertainty for o in operations):
        with torch.no_grad():
            answer = adapter_of(host).likelihood(host, inputs, data_samples)
        unsure = uncertainty(answer.terms, len(inputs))
    content = adapter_of(host).content(host, inputs, data_samples, False)
    canvas = None
    if any(o.leaves_out_padding for o in operations):
        canvas = padding_canvas(neck, inputs, data_samples, content)
    return dict(
        images=data_samples or range(len(inputs)),
        content=content,
        canvas=canvas,
        sensitivity=sensitivity,
        detections=detections,
        uncertainty=unsure)


@contextmanager
def every_forward(neck: FeatJNDNeck,
                  operation: BaseOperation) -> Iterator[List[Run]]:
    """Give every ``forward`` of a host a run of its own.

    Args:
        neck (FeatJNDNeck): It knows its host.
        operation (BaseOperation): The operation.

    Yields:
        list[Run]: The runs so far, in their order.
    """
    runs: List[Run] = []
    host = neck.host
    forward = host.forward

    def run_forward(inputs, data_samples=None, *args, **kwargs):
        with torch.no_grad():
            known = prepare(neck, [operation], inputs, data_samples)
        with neck.run(operation, **known) as run:
            result = forward(inputs, data_samples, *args, **kwargs)
        runs.append(run)
        return result

    former = vars(host).get('forward')
    host.forward = run_forward  # of this instance, and inside only
    try:
        yield runs
    finally:
        del host.forward
        if former is not None:
            host.forward = former
