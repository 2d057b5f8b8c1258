from .base_estimator import BaseEstimator
from .conv_estimator import ConvEstimator
from .token_estimator import TokenEstimator

__all__ = ['BaseEstimator', 'ConvEstimator', 'TokenEstimator']
