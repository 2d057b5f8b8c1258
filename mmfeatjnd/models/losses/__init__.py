from .featjnd_loss import FeatJNDLoss

__all__ = ['FeatJNDLoss']
