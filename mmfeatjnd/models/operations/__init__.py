from .base_operation import BaseOperation, check_finite, image_ids
from .perturbation import Perturbation
from .quantization import Quantization
from .quantization_surrogate import QuantizationSurrogate
from .step_policies import StepPolicy

__all__ = [
    'BaseOperation', 'Perturbation', 'Quantization', 'QuantizationSurrogate',
    'StepPolicy', 'check_finite', 'image_ids'
]
