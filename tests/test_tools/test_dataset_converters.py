import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmfeatjnd.utils import WriteError

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


class Rgb:
    """Two images as MMPretrain's CIFAR10 holds them."""
    metainfo = dict(classes=('cat', 'dog'))

    def __init__(self):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)

    def __len__(self):
        return 3

    def get_data_info(self, i):
        return dict(img=self.images[i], gt_label=np.array(i % 2))


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location(
        'cifar10', TOOLS / 'dataset_converters' / 'cifar10.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_cifar10_folder_keeps_every_pixel(tool, tmp_path):
    dataset = Rgb()
    tool.write_folder(dataset, tmp_path)
    files = sorted(f.relative_to(tmp_path) for f in tmp_path.glob('*/*.png'))
    assert [str(f) for f in files] == [
        'cat/00000.png', 'cat/00002.png', 'dog/00001.png'
    ]
    bgr = cv2.imread(str(tmp_path / 'dog/00001.png'))
    assert np.array_equal(bgr[..., ::-1], dataset.images[1])


def test_an_image_that_cannot_be_written(tool, tmp_path):
    """OpenCV says so by what it returns only."""
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat/00000.png').mkdir()
    with pytest.raises(WriteError, match='cannot write .*cat/00000.png'):
        tool.write_folder(Rgb(), tmp_path)
