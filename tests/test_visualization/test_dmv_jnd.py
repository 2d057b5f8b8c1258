import numpy as np
import pytest
import torch
from PIL import Image

from mmfeatjnd.models import PixelJND
from mmfeatjnd.visualization import draw_training
from mmfeatjnd.visualization.dmv_jnd import panels


def found(size=(4, 6)):
    """One blue image that turns half as bright, attended to at one pixel."""
    image = torch.full((1, 3, *size), -1.)
    image[:, 0] = 1.  # BGR
    jnd = torch.zeros_like(image)
    jnd[:, 0] = -1.
    attention = torch.zeros(1, 1, *size)
    attention[0, 0, 1, 2] = 1.
    return PixelJND(image, jnd, attention, [], [0])


def test_panels_by_hand():
    pictures = panels(found())
    assert pictures['original'][0, 0] == pytest.approx([0, 0, 1])  # RGB
    assert pictures['distorted'][0, 0] == pytest.approx([0, 0, 0.5])
    assert pictures['JND'][0, 0] == pytest.approx([0.5, 0.5, 0])
    assert pictures['attention'].sum() == pictures['attention'][1, 2] == 1


def test_pictures(tmp_path):
    """Two images of several sizes, and two stages."""
    file = tmp_path / 'training.png'
    images = [found(), found((5, 3))]
    draw_training({'epoch_1': images, 'epoch_9': images}, file)
    assert np.ptp(np.array(Image.open(file).convert('L'))) > 100
