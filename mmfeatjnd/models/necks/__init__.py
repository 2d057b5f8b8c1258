from .featjnd_neck import FeatJNDNeck, find_neck, neck_at

__all__ = ['FeatJNDNeck', 'find_neck', 'neck_at']
