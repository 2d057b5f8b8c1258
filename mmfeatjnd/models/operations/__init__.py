from .base_operation import BaseOperation
from .base_training import BaseTraining
from .distillation import Distillation
from .distortions import Distortion, build_distortion, distortion_names
from .drawn_nrmse import DrawnNRMSE
from .learned_nrmse import LearnedNRMSE
from .perturbation import Perturbation
from .quantization import Quantization
from .quantization_surrogate import QuantizationSurrogate
from .recorders import FeatureRecorder, JNDMapRecorder
from .step_policies import StepPolicy
from .token_maps import TokenMap

__all__ = [
    'BaseOperation', 'BaseTraining', 'Distillation', 'Distortion',
    'DrawnNRMSE', 'FeatureRecorder', 'JNDMapRecorder', 'LearnedNRMSE',
    'Perturbation', 'Quantization', 'QuantizationSurrogate', 'StepPolicy',
    'TokenMap', 'build_distortion', 'distortion_names'
]
