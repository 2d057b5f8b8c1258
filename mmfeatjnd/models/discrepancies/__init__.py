from .base_discrepancy import BaseDiscrepancy, host_pass, total_loss
from .host_loss import Annotation, PseudoGroundTruth, host_loss
from .prediction_divergence import PredictionDivergence

__all__ = [
    'Annotation', 'BaseDiscrepancy', 'PredictionDivergence',
    'PseudoGroundTruth', 'host_loss', 'host_pass', 'total_loss'
]
