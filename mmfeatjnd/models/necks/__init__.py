from .featjnd_neck import FeatJNDNeck, find_neck

__all__ = ['FeatJNDNeck', 'find_neck']
