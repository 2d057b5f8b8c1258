from .perturbation_hook import PerturbationHook
from .progress_hook import ProgressHook
from .quantization_hook import QuantizationHook

__all__ = ['PerturbationHook', 'ProgressHook', 'QuantizationHook']
