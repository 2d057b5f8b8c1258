import numpy as np
import pytest
import torch
from PIL import Image

from mmfeatjnd.models import Distorted
from mmfeatjnd.visualization import draw_curve, draw_training
from mmfeatjnd.visualization.dmv_jnd import panels


def found(size=(4, 6)):
    """One blue image that turns half as bright, attended to at one pixel."""
    image = torch.full((1, 3, *size), -1.)
    image[:, 0] = 1.  # BGR
    jnd = torch.zeros_like(image)
    jnd[:, 0] = -1.
    attention = torch.zeros(1, 1, *size)
    attention[0, 0, 1, 2] = 1.
    pixels = 127.5 * (image + jnd + 1)
    return Distorted(pixels, image, jnd, attention, None, [])


def test_panels_by_hand():
    pictures = panels(found(), 0)
    assert pictures['original'][0, 0] == pytest.approx([0, 0, 1])  # RGB
    assert pictures['distorted'][0, 0] == pytest.approx([0, 0, 0.5])
    assert pictures['JND'][0, 0] == pytest.approx([0.5, 0.5, 0])
    assert pictures['attention'].sum() == pictures['attention'][1, 2] == 1


def test_padding_is_not_shown():
    stage = found()
    stage = stage._replace(images=[stage.images[0, :, :3, :5]])
    assert all(p.shape[:2] == (3, 5) for p in panels(stage, 0).values())


def test_pictures(tmp_path):
    file = tmp_path / 'training.png'
    draw_training({'epoch_1': found(), 'epoch_9': found()}, file, [0])
    assert np.ptp(np.array(Image.open(file).convert('L'))) > 100
    rows = [
        dict(series=name, metrics={
            'rca/mean': 90. - i,
            'psnr': 10. - i
        }) for name in ('JND', 'WGN') for i in range(3)
    ]
    draw_curve(rows, tmp_path / 'curve.png')
    assert np.ptp(np.array(Image.open(tmp_path / 'curve.png'))) > 100
