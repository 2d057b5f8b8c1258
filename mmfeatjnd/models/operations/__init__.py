from .perturbation import Perturbation, image_ids

__all__ = ['Perturbation', 'image_ids']
