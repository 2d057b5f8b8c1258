from .perturbation_hook import PerturbationHook
from .progress_hook import ProgressHook

__all__ = ['PerturbationHook', 'ProgressHook']
