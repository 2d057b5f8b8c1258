from .base_operation import BaseOperation
from .perturbation import Perturbation
from .quantization import Quantization
from .quantization_surrogate import QuantizationSurrogate
from .step_policies import StepPolicy
from .training_perturbation import TrainingPerturbation

__all__ = [
    'BaseOperation', 'Perturbation', 'Quantization', 'QuantizationSurrogate',
    'StepPolicy', 'TrainingPerturbation'
]
