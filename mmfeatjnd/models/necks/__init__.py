from .featjnd_neck import FeatJNDNeck

__all__ = ['FeatJNDNeck']
