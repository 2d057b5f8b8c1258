import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.structures import InstanceData

from mmfeatjnd.visualization import draw_instances

PALETTE = [(255, 0, 0), (0, 0, 255)]


def drawn(found, **kwargs):
    """The pixels of a black picture of 8 x 8 with what was found."""
    figure = Figure(figsize=(2, 2))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_instances(axes, np.zeros((8, 8, 3), np.uint8), found, ('a', 'b'),
                   PALETTE, **kwargs)
    canvas.draw()
    names = [t.get_text() for t in axes.texts]
    return np.asarray(canvas.buffer_rgba())[..., :3], names


def instances(**kwargs):
    return InstanceData(
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.9, 0.3]),
        bboxes=torch.tensor([[2., 2, 6, 6], [0, 0, 7, 7]]),
        **kwargs)


@pytest.mark.parametrize('kind', [torch.as_tensor, np.asarray])
def test_what_is_sure_is_drawn(kind):
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 3:6, 3:6] = True
    pixels, names = drawn(instances(masks=kind(masks)))
    assert names == ['b']
    # the middle of the mask, and a corner beside it
    assert pixels[112, 112].tolist() == [0, 0, pytest.approx(153, abs=1)]
    assert pixels[190, 190].tolist() == [0, 0, 0]
    assert not pixels[..., 0].max() or (pixels[..., 0] > 0).mean() < 0.05
    pixels, names = drawn(instances(masks=kind(masks)), score_thr=0.2)
    assert names == ['b', 'a']


def test_boxes_alone_and_nothing():
    pixels, names = drawn(instances())
    assert names == ['b'] and (pixels[..., 2] > 200).any()
    assert pixels[112, 112].tolist() == [0, 0, 0]
    pixels, names = drawn(instances()[:0])
    assert names == [] and pixels.max() == 0
