from .perturbation import Perturbation, check_finite, image_ids

__all__ = ['Perturbation', 'check_finite', 'image_ids']
