"""Encode many pictures in several processes, each with a sender."""
import functools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Callable, Iterator, Optional, Sequence

import torch

from .feature_codec import FeatureCodec, Picture

_codec: Optional[FeatureCodec] = None


def _start(make: Callable[[], FeatureCodec], threads: int) -> None:
    global _codec
    torch.set_num_threads(threads)
    _codec = make()


def _encode(picture: Picture) -> bytes:
    return _codec.encode(picture)


def encode_all(make: Callable[[], FeatureCodec],
               pictures: Sequence[Picture],
               jobs: int = 1) -> Iterator[bytes]:
    """Encode pictures in their order.

    Args:
        make (Callable): Makes the sender, in each process; what pickle can
            hold, such as a ``functools.partial`` of :class:`FeatureCodec`.
        pictures (Sequence): See :meth:`FeatureCodec.encode`.
        jobs (int): Number of processes, which share the cores. Defaults to 1:
            this one.

    Yields:
        bytes: Of each picture, as soon as it is there.

    Raises:
        CodecError: See :meth:`FeatureCodec.encode`.

    Example:
        >>> from functools import partial
        >>> from mmfeatjnd.apis import make_plan
        >>> plan = make_plan(cfg, checkpoint, images=8, nats=[1e-7, 1e-6])
        Loads checkpoint ...
        >>> make = partial(FeatureCodec, cfg, checkpoint, plan, step=1e-6,
        ...                device='cpu')
        >>> one, two = encode_all(make, [image, image])
        >>> one == two
        True
    """
    if jobs <= 1:
        yield from map(make().encode, pictures)
        return
    context = multiprocessing.get_context('spawn')
    start = functools.partial(_start, make,
                              max(1, (os.cpu_count() or 1) // jobs))
    with ProcessPoolExecutor(jobs, context, start) as pool:
        try:
            yield from pool.map(_encode, pictures)
        except BaseException:  # the others need not be encoded
            pool.shutdown(cancel_futures=True)
            raise
