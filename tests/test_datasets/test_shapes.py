import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmfeatjnd.datasets import generate_shapes
from mmfeatjnd.datasets import shapes as module
from mmfeatjnd.datasets.shapes import CLASSES, render_image

SMALL = dict(num_train=5, num_val=3, image_size=96, progress=False)
CONFIG = (
    Path(__file__).parents[2] / 'configs/demo/mask-rcnn_tiny_shapes.py')


def digests(root):
    return {
        str(path.relative_to(root)):
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(root).rglob('*')) if path.is_file()
    }


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return generate_shapes(
        tmp_path_factory.mktemp('data') / 'shapes', **SMALL)


def test_layout(root):
    assert sorted(digests(root)) == sorted(
        ['meta.json'] +
        [f'annotations/instances_{s}.json' for s in ('train', 'val')] +
        [f'train/{i:06d}.png' for i in range(5)] +
        [f'val/{i:06d}.png' for i in range(3)])
    assert cv2.imread(str(root / 'val/000000.png')).shape == (96, 96, 3)
    # nothing of the temporary folder stays behind
    assert [path.name for path in root.parent.iterdir()] == ['shapes']


def test_same_seed_same_bytes(root, tmp_path):
    again = generate_shapes(tmp_path / 'again', **SMALL)
    assert digests(again) == digests(root)
    other = digests(generate_shapes(tmp_path / 'other', seed=1, **SMALL))
    same = [k for k, v in digests(root).items() if other[k] == v]
    assert same == []


def test_image_does_not_depend_on_counts(root, tmp_path):
    more = generate_shapes(
        tmp_path / 'more', **{**SMALL, 'num_train': 7, 'num_val': 2})
    ours, theirs = digests(root), digests(more)
    for i in range(5):
        assert ours[f'train/{i:06d}.png'] == theirs[f'train/{i:06d}.png']
    for i in range(2):
        assert ours[f'val/{i:06d}.png'] == theirs[f'val/{i:06d}.png']
    assert ours['train/000000.png'] != ours['val/000000.png']
    few = json.loads((root / 'annotations/instances_train.json').read_text())
    many = json.loads((more / 'annotations/instances_train.json').read_text())
    count = len(few['annotations'])
    assert many['annotations'][:count] == few['annotations']


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_annotations_match_the_drawing(root, split):
    from pycocotools.coco import COCO
    coco = COCO(str(root / f'annotations/instances_{split}.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())
            ] == list(CLASSES)
    assert min(coco.getAnnIds()) == 1
    for index, image_id in enumerate(sorted(coco.getImgIds())):
        info = coco.loadImgs(image_id)[0]
        image, labels, masks = render_image(0, split, index, 96)
        stored = cv2.imread(str(root / split / info['file_name']))
        np.testing.assert_array_equal(stored[..., ::-1], image)
        anns = coco.loadAnns(coco.getAnnIds(image_id))
        assert 1 <= len(anns) <= 5
        assert [a['category_id'] - 1 for a in anns] == labels
        for ann, mask in zip(anns, masks):
            decoded = coco.annToMask(ann)
            np.testing.assert_array_equal(decoded, mask)
            assert ann['area'] == decoded.sum() and ann['iscrowd'] == 0
            ys, xs = np.nonzero(decoded)
            assert ann['bbox'] == [
                xs.min(),
                ys.min(),
                xs.max() - xs.min() + 1,
                ys.max() - ys.min() + 1
            ]


def test_masks_are_visible_parts():
    overlaps = 0
    counts = np.zeros(len(CLASSES), int)
    for index in range(40):
        image, labels, masks = render_image(0, 'train', index)
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert masks.dtype == bool and masks.shape == (len(labels), 128, 128)
        assert masks.sum(0).max() == 1
        assert masks.sum((1, 2)).min() >= (0.06 * 128)**2
        np.add.at(counts, labels, 1)
        # a covered disc or square has a hollow that a whole one has not
        for label, mask in zip(labels, masks):
            if CLASSES[label] in ('disc', 'square'):
                points = np.argwhere(mask)[:, ::-1].astype(np.int32)
                hull = np.zeros((128, 128), np.uint8)
                cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
                overlaps += mask.sum() < 0.95 * hull.sum()
    assert overlaps > 3
    assert counts.min() >= 10, dict(zip(CLASSES, counts))


@pytest.mark.parametrize('name, area', [
    ('disc', np.pi * 0.81),
    ('square', 1.5**2),
    ('triangle', 3 * np.sqrt(3) / 4),
    ('star', 5 * 0.42 * np.sin(np.pi / 5)),
    ('ring', np.pi * (1 - 0.25)),
])
def test_area_of_shapes(name, area):
    v, u = (np.mgrid[:800, :800] + 0.5) / 400 - 1
    inside = module._inside(name, u, v)
    assert inside.mean() * 4 == pytest.approx(area, rel=5e-3)


def test_complete_set_is_left_alone(root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    assert generate_shapes(root, **SMALL) == root
    assert {p: p.stat().st_mtime_ns for p in root.rglob('*')} == before


def test_other_parameters(tmp_path):
    root = generate_shapes(tmp_path / 'a/b', **SMALL)
    before = digests(root)
    with pytest.raises(FileExistsError, match='seed is 0, asked for 3'):
        generate_shapes(root, seed=3, **SMALL)
    (root / 'train/000002.png').unlink()
    with pytest.raises(FileExistsError, match='train/000002.png'):
        generate_shapes(root, **SMALL)
    generate_shapes(root, overwrite=True, **SMALL)
    assert digests(root) == before
    generate_shapes(root, seed=3, overwrite=True, **SMALL)
    assert json.loads((root / 'meta.json').read_text())['seed'] == 3
    assert [path.name for path in root.parent.iterdir()] == ['b']


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize('meta', [None, '{}', '[1]', 'not json'])
def test_foreign_folder_is_kept(tmp_path, overwrite, meta):
    (tmp_path / 'photo.png').write_text('mine')
    if meta is not None:
        (tmp_path / 'meta.json').write_text(meta)
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match='choose another folder'):
        generate_shapes(tmp_path, overwrite=overwrite, **SMALL)
    assert digests(tmp_path) == before
    with pytest.raises(FileExistsError, match='not a folder'):
        generate_shapes(tmp_path / 'photo.png', overwrite=overwrite, **SMALL)


def test_empty_folder_is_used(tmp_path, root):
    (tmp_path / 'empty').mkdir()
    assert digests(generate_shapes(tmp_path / 'empty', **SMALL)) == digests(
        root)


@pytest.mark.parametrize('exists', [False, True])
def test_interrupted(tmp_path, monkeypatch, exists):
    root = tmp_path / 'shapes'
    if exists:
        generate_shapes(root, **SMALL)
    before = digests(tmp_path)

    def interrupted(seed, split, index, size):
        if (split, index) == ('val', 1):
            raise KeyboardInterrupt
        return render_image(seed, split, index, size)

    with monkeypatch.context() as patch:
        patch.setattr(module, 'render_image', interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate_shapes(root, seed=9, overwrite=True, **SMALL)
    assert digests(tmp_path) == before
    generate_shapes(root, seed=9, overwrite=True, **SMALL)
    assert (root / 'meta.json').is_file()


@pytest.mark.parametrize('bad', [
    dict(num_train=0),
    dict(num_val=-1),
    dict(image_size=32),
    dict(seed=-1),
    dict(seed=0.5),
    dict(num_train=True),
])
def test_bad_parameters(tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        generate_shapes(tmp_path / 'x', **{**SMALL, **bad})
    assert list(tmp_path.iterdir()) == []


def test_demo_config_reads_the_set(root):
    """The host's own data set class and pipeline read what was written."""
    from mmdet.registry import DATASETS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    cfg = Config.fromfile(CONFIG)
    assert cfg.metainfo.classes == CLASSES
    assert len(cfg.metainfo.palette) == len(CLASSES) == cfg.num_classes
    cfg.train_dataloader.dataset.data_root = str(root)
    cfg.test_dataloader.dataset.data_root = str(root)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        test_set = DATASETS.build(cfg.test_dataloader.dataset)
    assert len(dataset) == 5 and len(test_set) == 3
    # prediction maps its boxes back with the scale factor
    assert test_set[0]['data_samples'].scale_factor == (1, 1)
    assert test_set[0]['inputs'].shape == (3, 96, 96)
    _, labels, masks = render_image(0, 'train', 3, 96)
    dataset.pipeline.transforms = [
        t for t in dataset.pipeline.transforms
        if type(t).__name__ != 'RandomFlip'
    ]
    instances = dataset[3]['data_samples'].gt_instances
    assert instances.labels.tolist() == labels
    np.testing.assert_array_equal(instances.masks.masks, masks)
    xs = np.nonzero(masks[0].any(0))[0]
    assert instances.bboxes.tensor[0, 0::2].tolist() == [
        xs[0], xs[-1] + 1
    ]
