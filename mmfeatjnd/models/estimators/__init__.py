from .base_estimator import BaseEstimator
from .conv_estimator import ConvEstimator
from .static_estimator import StaticEstimator
from .token_estimator import TokenEstimator

__all__ = [
    'BaseEstimator', 'ConvEstimator', 'StaticEstimator', 'TokenEstimator'
]
