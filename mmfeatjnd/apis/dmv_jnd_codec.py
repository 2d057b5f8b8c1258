"""RCA against bytes: images quantized by their JND, evenly, and by JPEG."""
from typing import List, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.utils import ProgressBar
from torch import Tensor

from mmfeatjnd.coding.image_codec import (
    decode_images,
    encode_images,
    jpeg_images,
)
from mmfeatjnd.functional import Steps
from mmfeatjnd.functional.pixels import block_steps
from .curve import new_evaluator
from .data import split_dataloader
from .dmv_jnd import dmv_jnd_runner


def _recode(pixels: Tensor, jnd: Tensor, codec: str,
            setting: float) -> Tuple[Tensor, int]:
    """The decoded images, (B, C, H, W), uint8, and the bytes of all."""
    if codec == 'jpeg':
        # the images come as BGR, and JPEG's colours are of RGB
        jpeg = jpeg_images(pixels.flip(1), int(setting))
        # headers are equal, Huffman tables included: a receiver has them
        return jpeg.images.flip(1), (jpeg.bytes - jpeg.header).sum().item()
    if codec == 'dmv-jnd':
        steps = block_steps(jnd * setting)
    else:
        steps = Steps(torch.full((len(pixels), ), float(setting)))
    data, = encode_images(pixels, steps, together=True)
    return decode_images(data), len(data)


@torch.no_grad()
def measure_dmv_jnd_codec(cfg: Config,
                          checkpoint: str,
                          scales: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
                          steps: Sequence[float] = (16, 32, 64, 128, 256),
                          qualities: Sequence[int] = (5, 10, 20, 50, 80),
                          split: str = 'test',
                          every: int = 1) -> List[dict]:
    """The metrics of ``test_evaluator`` on decoded images, and their bytes.

    Blocks of 8x8 pixels are coded with steps of twice their mean JND times a
    scale ('dmv-jnd'), with one step ('uniform'), and by JPEG with fixed
    Huffman tables ('jpeg'). The images of a batch share a stream, and JPEG's
    headers, all equal, are not counted: they would outweigh images of CIFAR's
    size.

    Args:
        cfg (Config): Of :class:`mmfeatjnd.models.DMVJND`; its images have one
            size and are read as BGR.
        checkpoint (str): Its checkpoint.
        scales (Sequence[float]): Times the JND. Defaults to 1/8 to 1.
        steps (Sequence[float]): Of 'uniform', in grey levels. Defaults to 16
            to 256.
        qualities (Sequence[int]): Of JPEG, 1 to 100. Defaults to 5 to 80.
        split (str): 'test' or 'train'. Defaults to 'test'.
        every (int): Only every so many-th image. Defaults to 1.

    Returns:
        list[dict]: ``codec``, ``setting``, ``bytes`` an image and
        ``metrics``.
    """
    runner, model = dmv_jnd_runner(cfg, checkpoint)
    loader = split_dataloader(runner, split, every)
    settings = [
        *(('dmv-jnd', s) for s in scales), *(('uniform', s) for s in steps),
        *(('jpeg', q) for q in qualities)
    ]
    rows = [dict(codec=codec, setting=setting, bytes=0)
            for codec, setting in settings]
    tests = [new_evaluator(runner, loader) for _ in rows]
    bar = ProgressBar(len(loader) * len(rows))
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        samples = data['data_samples']
        found = model.find(data['inputs'], samples)
        pixels = (found.clean * model.std + model.mean).round().cpu()
        pixels = pixels.clamp(0, 255)
        jnd = (found.jnd * model.std).cpu()
        for row, evaluator in zip(rows, tests):
            images, size = _recode(pixels, jnd, row['codec'], row['setting'])
            row['bytes'] += size
            decoded = model.replace(found, images.to(found.clean.device))
            evaluator.process(model.describe(decoded, samples), batch)
            bar.update()
    number = len(loader.dataset)
    return [
        dict(row, bytes=row['bytes'] / number,
             metrics=evaluator.evaluate(number))
        for row, evaluator in zip(rows, tests)
    ]
