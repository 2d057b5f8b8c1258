from .base_task import BaseTask, TaskReference
from .batches import DistortedImages, PixelJND, SizeGroup, group_batch
from .cam_neck import CAMNeck
from .classification_task import ClassificationTask
from .detection_task import DetectionTask
from .dmv_jnd import DMVJND
from .dmv_jnd_net import DMVJNDNet
from .loading import load_dmv_jnd

__all__ = [
    'BaseTask', 'CAMNeck', 'ClassificationTask', 'DMVJND', 'DMVJNDNet',
    'DetectionTask', 'DistortedImages', 'PixelJND', 'SizeGroup',
    'TaskReference', 'group_batch', 'load_dmv_jnd'
]
