"""RCA against bytes: images quantized by their JND, evenly, and by JPEG."""
from typing import List, Sequence

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
from mmfeatjnd.models import DMVJND, Distorted
from .dmv_jnd import dmv_jnd_runner, evaluators, split_dataloader


class _Codec:
    """One row: images to bytes and back."""

    def __init__(self, name: str, setting: float, evaluator) -> None:
        self.name = name
        self.setting = setting
        self.evaluator = evaluator
        self.bytes = 0

    def __call__(self, model: DMVJND, pixels: Tensor,
                 found: Distorted) -> Tensor:
        """The decoded images, (B, C, H, W), uint8."""
        if self.name == 'jpeg':
            # the images come as BGR, and JPEG's colours are of RGB
            jpeg = jpeg_images(pixels.flip(1), int(self.setting))
            # the headers of equal images are equal: a receiver has them
            self.bytes += int((jpeg.bytes - jpeg.header).sum())
            return jpeg.images.flip(1)
        if self.name == 'dmv-jnd':
            steps = block_steps(found.jnd.cpu() * model.std * self.setting)
        else:
            steps = Steps(torch.full((len(pixels), ), self.setting))
        data, = encode_images(pixels, steps, together=True)
        self.bytes += len(data)
        return decode_images(data)


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
    scale ('dmv-jnd'), with one step ('uniform'), and by JPEG ('jpeg'). The
    images of a batch share a stream, and JPEG's headers are not counted,
    which would outweigh images of CIFAR's size.

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
    codecs = [
        _Codec(*setting, evaluator) for setting, evaluator in zip(
            settings, evaluators(runner, loader, len(settings)))
    ]
    bar = ProgressBar(len(loader) * len(codecs))
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        samples = data['data_samples']
        found = model.find(data['inputs'], samples)
        pixels = (found.clean * model.std + model.mean).round().cpu()
        pixels = pixels.clamp(0, 255)
        for codec in codecs:
            images = codec(model, pixels, found).to(found.clean.device)
            decoded = model.replace(found, images)
            codec.evaluator.process(model.describe(decoded, samples), batch)
            bar.update()
    size = len(loader.dataset)
    return [
        dict(
            codec=codec.name,
            setting=codec.setting,
            bytes=codec.bytes / size,
            metrics=codec.evaluator.evaluate(size)) for codec in codecs
    ]
