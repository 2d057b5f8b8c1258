from .dmv_jnd_loss import DMVJNDLoss
from .featjnd_loss import FeatJNDLoss

__all__ = ['DMVJNDLoss', 'FeatJNDLoss']
