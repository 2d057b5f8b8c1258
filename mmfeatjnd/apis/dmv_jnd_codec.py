"""RCA against bytes: images quantized by their JND, evenly, and by JPEG."""
from typing import List, Sequence

import torch
from mmengine.config import Config

from mmfeatjnd.coding.image_codec import (
    decode_images,
    encode_images,
    jpeg_images,
)
from mmfeatjnd.functional import Steps
from mmfeatjnd.functional.pixels import block_steps
from mmfeatjnd.models import DMVJND, DistortedImages, PixelJND
from .dmv_jnd import measure_distortions


class _Codec:
    """A codec as a distortion, which counts images and bytes.

    Args:
        name (str): 'dmv-jnd', 'uniform' or 'jpeg'.
        setting (float): Its scale, step or quality.
    """

    def __init__(self, name: str, setting: float) -> None:
        self.name = name
        self.setting = setting
        self.images = self.bytes = 0

    def __call__(self, model: DMVJND, estimate: PixelJND) -> DistortedImages:
        pixels = (estimate.clean * model.std + model.mean).round().cpu()
        pixels = pixels.clamp(0, 255)
        self.images += len(pixels)
        if self.name == 'jpeg':
            decoded = self._jpeg(pixels)
        else:
            steps = self._steps((estimate.jnd * model.std).cpu())
            data, = encode_images(pixels, steps, together=True)
            self.bytes += len(data)
            decoded = decode_images(data)
        return model.with_images(estimate, decoded.to(estimate.clean.device))

    def _steps(self, jnd: torch.Tensor) -> Steps:
        if self.name == 'dmv-jnd':
            return block_steps(jnd * self.setting)
        return Steps(torch.full((len(jnd), ), float(self.setting)))

    def _jpeg(self, pixels: torch.Tensor) -> torch.Tensor:
        # the images come as BGR, and JPEG's colours are of RGB
        jpeg = jpeg_images(pixels.flip(1), int(self.setting))
        # headers are equal, Huffman tables included: a receiver has them
        self.bytes += (jpeg.bytes - jpeg.header).sum().item()
        return jpeg.images.flip(1)


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
    Huffman tables ('jpeg'). The images of a batch share a stream, of several
    sizes one of each size, and JPEG's headers, all equal, are not counted:
    they would outweigh images of CIFAR's size.

    Args:
        cfg (Config): A config of :class:`mmfeatjnd.models.DMVJND`; its images
            are read as BGR.
        checkpoint (str): Its checkpoint.
        scales (Sequence[float]): Factors of the JND. Defaults to 1/8 to 1.
        steps (Sequence[float]): Steps of 'uniform', in grey levels. Defaults
            to 16 to 256.
        qualities (Sequence[int]): Qualities of JPEG, 1 to 100. Defaults to 5
            to 80.
        split (str): See :func:`measure_distortions`. Defaults to 'test'.
        every (int): See :func:`measure_distortions`. Defaults to 1.

    Returns:
        list[dict]: ``codec``, ``setting``, ``bytes`` an image and
        ``metrics``.

    Example:
        >>> rows = measure_dmv_jnd_codec(jnd_cfg, jnd_checkpoint, scales=[1],
        ...                              steps=[64], qualities=[50])
        Loads checkpoint ...
        >>> [(row['codec'], row['setting']) for row in rows]
        [('dmv-jnd', 1), ('uniform', 64), ('jpeg', 50)]
    """
    codecs = [
        *(_Codec('dmv-jnd', s) for s in scales),
        *(_Codec('uniform', s) for s in steps),
        *(_Codec('jpeg', q) for q in qualities)
    ]
    metrics = measure_distortions(cfg, checkpoint, codecs, split, every)
    return [
        dict(
            codec=codec.name,
            setting=codec.setting,
            bytes=codec.bytes / codec.images,
            metrics=row) for codec, row in zip(codecs, metrics)
    ]
