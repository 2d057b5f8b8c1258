from .base_operation import BaseOperation
from .distortions import Distortion, build_distortion, distortion_names
from .perturbation import Perturbation
from .quantization import Quantization
from .quantization_surrogate import QuantizationSurrogate
from .step_policies import StepPolicy
from .training_perturbation import TrainingPerturbation

__all__ = [
    'BaseOperation', 'Distortion', 'Perturbation', 'Quantization',
    'QuantizationSurrogate', 'StepPolicy', 'TrainingPerturbation',
    'build_distortion', 'distortion_names'
]
