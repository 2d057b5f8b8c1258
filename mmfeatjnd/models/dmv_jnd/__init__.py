from .base_task import BaseTask, Reference
from .cam_neck import CAMNeck
from .classification_task import ClassificationTask
from .detection_task import DetectionTask
from .dmv_jnd import DMVJND, Distorted
from .dmv_jnd_net import DMVJNDNet

__all__ = [
    'BaseTask', 'CAMNeck', 'ClassificationTask', 'DMVJND', 'DMVJNDNet',
    'DetectionTask', 'Distorted', 'Reference'
]
