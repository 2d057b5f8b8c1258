"""Measure a host on pictures that went through a picture codec."""
import copy
import inspect
from itertools import repeat
from typing import Dict, List, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmfeatjnd.functional import nats as divergence
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.utils import ConfigError, type_name
from .codec_images import pipeline_dataset
from .curve import OperationTest, Setting, new_evaluator, progress_bar

#: Where pictures are encoded: as they are read, or as the host takes them.
PLACES = ('full', 'input')


def through_codec(cfg: Config, codec: dict, place: str) -> Config:
    """A config whose test pictures go through a picture codec.

    Args:
        cfg (Config): A config of any host.
        codec (dict): Arguments of :class:`mmfeatjnd.datasets.Recompress`.
        place (str): 'full': as pictures are read; 'input': as the host takes
            them, resized or cropped and without padding.

    Returns:
        Config: Its data samples know ``coded_bytes``.

    Raises:
        ConfigError: The test pipeline does not begin with loading an image
            file, or does not pack it.
    """
    if place not in PLACES:
        raise ValueError(f'place must be one of {PLACES}, but got {place!r}')
    cfg = copy.deepcopy(cfg)
    dataset = pipeline_dataset(cfg)
    names = [str(type_name(t)).rpartition('.')[2] for t in dataset.pipeline]
    packs = [i for i, n in enumerate(names) if n.startswith('Pack')]
    if names[:1] != ['LoadImageFromFile'] or not packs:
        raise ConfigError('the test pipeline must begin with '
                          f'LoadImageFromFile and pack it, but it is {names}')
    pack = dataset.pipeline[packs[0]]
    if 'meta_keys' not in pack:
        packer = TRANSFORMS.get(f'{cfg.default_scope}.{names[packs[0]]}')
        pack.meta_keys = inspect.signature(
            packer.__init__).parameters['meta_keys'].default
    pack.meta_keys = (*pack.meta_keys, 'coded_bytes')
    ends = [i for i, n in enumerate(names)
            if n in ('Pad', 'LoadAnnotations') or i in packs]
    at = 1 if place == 'full' else min(ends)
    dataset.pipeline.insert(at, dict(type='mmfeatjnd.Recompress', **codec))
    return cfg


@torch.no_grad()
def measure_pictures(cfg: Config, checkpoint: str,
                     codecs: Dict[str, Sequence[int]],
                     places: Sequence[str] = PLACES,
                     draws: int = 0) -> List[dict]:
    """The task metric of pictures that went through a picture codec.

    Args:
        cfg (Config): See :class:`OperationTest`.
        checkpoint (str): See :class:`OperationTest`.
        codecs (dict[str, Sequence[int]]): Qualities by the name of a codec,
            see :class:`mmfeatjnd.datasets.Recompress`.
        places (Sequence[str]): See :func:`through_codec`. Defaults to both.
        draws (int): See :meth:`OperationTest.measure`. Defaults to 0.

    Returns:
        list[dict]: ``policy`` (the codec), ``place``, ``quality``,
        ``coded_bytes`` (mean), ``bits_per_pixel`` (of pictures as they are
        read) and ``metrics``, with ``kl``: nats from the answer to the
        pictures as they are. The first is the clean host.

    Example:
        >>> rows = measure_pictures(cfg, checkpoint, dict(webp=[50]),
        ...                         ['full'])
        Loads checkpoint ...
        >>> [row['policy'] for row in rows], rows[1]['coded_bytes'] > 20
        (['clean', 'webp'], True)
    """
    test = OperationTest(cfg, checkpoint)
    rows = []
    asked = [(name, quality, place) for place in places
             for name, qualities in codecs.items() for quality in qualities]
    rows.append(dict(policy='clean', seed=0,
                     **_row(test, test.dataloader(), None, draws)))
    for name, quality, place in asked:
        changed = through_codec(
            test.runner.cfg, dict(format=name, quality=quality), place)
        loader = test.runner.build_dataloader(changed.test_dataloader)
        rows.append(dict(policy=name, place=place, quality=quality, seed=0,
                         **_row(test, loader, test.dataloader(), draws)))
        print(f"{name} {quality} {place}: {rows[-1]['coded_bytes']:.0f} "
              f"bytes, {rows[-1]['metrics']}", flush=True)
    return rows


def _row(test: OperationTest, loader, clean, draws: int) -> dict:
    """One setting; ``clean`` is a loader of the pictures as they are."""
    model, adapter = test.model, adapter_of(test.model)
    setting = Setting(new_evaluator(test.runner, loader))
    coded: List[int] = []
    pixels = 0
    with progress_bar(len(loader)) as step:
        # a loader with persistent workers has one iterator
        for batch, other in zip(loader, clean or repeat(None)):
            data = model.data_preprocessor(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            if clean is not None:
                known = model.data_preprocessor(other, False)
                expected = adapter.likelihood(
                    model, known['inputs'], known['data_samples'])
                found = adapter.likelihood(model, inputs, samples,
                                           expected.proposals)
                setting.nats.append(divergence(
                    expected.terms, found.terms, len(inputs)))
                coded += [s.coded_bytes for s in samples]
                pixels += sum(s.ori_shape[0] * s.ori_shape[1]
                              for s in samples)
            setting.evaluator.process(model.predict(inputs, samples), batch)
            step()
    size = len(loader.dataset)
    row = setting.row(size, nats=clean is not None, draws=draws,
                      per_image=dict(coded_bytes=coded) if coded else None)
    if coded:
        row.update(coded_bytes=sum(coded) / size,
                   bits_per_pixel=8 * sum(coded) / pixels)
    return row
