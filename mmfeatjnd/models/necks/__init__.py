from .featjnd_neck import FeatJNDNeck, find_neck, host_of, neck_at

__all__ = ['FeatJNDNeck', 'find_neck', 'host_of', 'neck_at']
