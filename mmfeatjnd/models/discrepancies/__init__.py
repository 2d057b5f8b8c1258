from .base_discrepancy import BaseDiscrepancy, total_loss
from .host_loss import Annotation, PseudoGroundTruth
from .prediction_divergence import PredictionDivergence

__all__ = [
    'Annotation', 'BaseDiscrepancy', 'PredictionDivergence',
    'PseudoGroundTruth', 'total_loss'
]
