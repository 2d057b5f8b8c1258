from .base_discrepancy import BaseDiscrepancy
from .host_loss import Annotation, PseudoGroundTruth
from .prediction_divergence import PredictionDivergence

__all__ = [
    'Annotation', 'BaseDiscrepancy', 'PredictionDivergence',
    'PseudoGroundTruth'
]
