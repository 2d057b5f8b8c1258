from .cam_neck import CAMNeck
from .dmv_jnd_net import DMVJNDNet

__all__ = ['CAMNeck', 'DMVJNDNet']
