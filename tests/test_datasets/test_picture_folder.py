"""Pictures without labels."""
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(16, 16), keep_ratio=True),
    dict(type='PackDetInputs'),
]


@pytest.fixture
def folder(tmp_path):
    for name in ('b.png', 'a.JPG', 'sub/c.webp'):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        size = (8, 12, 3) if name == 'b.png' else (8, 8, 3)
        Image.fromarray(np.zeros(size, np.uint8)).save(file)
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'list.txt').write_text('b.png 3\na.JPG 0\n\n')
    return tmp_path


def build(**kwargs):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(
            Config(dict(type='mmfeatjnd.PictureFolder', **kwargs)))


def test_all_pictures_of_a_folder(folder):
    dataset = build(data_root=str(folder), pipeline=PIPELINE)
    assert [dataset.get_data_info(i)['img_path'] for i in range(3)] == [
        str(folder / n) for n in ('a.JPG', 'b.png', 'sub/c.webp')
    ]
    item = dataset[1]
    assert item['inputs'].shape == (3, 11, 16)  # 8 x 12, in proportion
    assert item['data_samples'].img_id == 1
    assert len(item['data_samples'].gt_instances) == 0


def test_those_that_a_list_names(folder):
    dataset = build(data_root=str(folder), ann_file='list.txt')
    assert [dataset.get_data_info(i)['img_path'] for i in range(2)] == [
        str(folder / n) for n in ('b.png', 'a.JPG')
    ]


def test_a_folder_below_the_root(folder):
    dataset = build(
        data_root=str(folder), data_prefix=dict(img_path='sub'))
    assert len(dataset) == 1


@pytest.mark.parametrize('kwargs, message', [
    (dict(data_prefix=dict(img_path='nowhere')), 'no folder'),
    (dict(ann_file='nowhere.txt'), 'no list'),
    (dict(data_prefix=dict(img_path='empty')), 'no picture'),
])
def test_what_is_not_there(folder, kwargs, message):
    (folder / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=message):
        build(data_root=str(folder), **kwargs)
