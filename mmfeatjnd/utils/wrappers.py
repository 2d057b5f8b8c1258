"""What stands around a model while it is trained and tested."""
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model behind DDP and test-time augmentation.

    Args:
        model (nn.Module): A model, with or without such wrappers.

    Returns:
        nn.Module: The model itself.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
