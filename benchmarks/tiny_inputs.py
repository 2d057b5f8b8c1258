"""A tiny picture with annotations, as a model of any host library takes it."""
from typing import Tuple

import numpy as np
import torch
from mmengine.config import Config

from mmfeatjnd.utils import config_library

IMAGES = 2


def tiny_batch(cfg: Config, size: int) -> dict:
    """What a data loader would give: noise, two objects, one class.

    Args:
        cfg (Config): The config.
        size (int): Height and width, pixels.

    Returns:
        dict: ``inputs`` and ``data_samples``, for the data preprocessor.
    """
    make = dict(mmdet=_detection, mmpretrain=_classification,
                mmseg=_segmentation)[config_library(cfg)]
    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for i in range(IMAGES):
        inputs.append(torch.from_numpy(
            rng.integers(0, 256, (3, size, size), np.uint8)))
        samples.append(make(i, dict(
            img_id=i, img_shape=(size, size), ori_shape=(size, size),
            pad_shape=(size, size), batch_input_shape=(size, size),
            scale_factor=(1.0, 1.0), flip=False, flip_direction=None), size))
    return dict(inputs=inputs, data_samples=samples)


def _two_boxes(size: int) -> Tuple[tuple, ...]:
    return ((0, 0, size // 2, size // 2),
            (size // 4, size // 4, size - 1, size - 1))


def _detection(index: int, meta: dict, size: int):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData
    boxes = _two_boxes(size)
    masks = np.zeros((2, size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.zeros(2, dtype=torch.int64),
        masks=BitmapMasks(masks, size, size))
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    sample.gt_sem_seg = PixelData(
        sem_seg=torch.zeros(1, size, size, dtype=torch.int64))
    return sample


def _classification(index: int, meta: dict, size: int):
    from mmpretrain.structures import DataSample
    return DataSample(metainfo=meta).set_gt_label(0)


def _segmentation(index: int, meta: dict, size: int):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sample = SegDataSample(metainfo=meta)
    labels = torch.zeros(1, size, size, dtype=torch.int64)
    labels[:, size // 2:] = 1
    sample.gt_sem_seg = PixelData(data=labels)
    sample.gt_edge_map = PixelData(data=torch.zeros_like(labels))
    return sample
