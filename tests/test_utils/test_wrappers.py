"""The model behind what is wrapped around it."""
from mmengine.model import (
    BaseModel,
    BaseTTAModel,
    MMDistributedDataParallel,
)
from torch import nn

from mmfeatjnd.utils import unwrapped


class Host(BaseModel):

    def forward(self, inputs):
        return inputs


class TTA(BaseTTAModel):

    def merge_preds(self, data_samples_list):
        return data_samples_list


def test_unwrapped():
    model = Host()
    assert unwrapped(model) is model
    tta = TTA(module=model)
    assert unwrapped(tta) is model
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = tta
    assert unwrapped(wrapper) is model
