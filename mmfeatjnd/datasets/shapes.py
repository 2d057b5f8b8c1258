"""A procedural instance-segmentation set: textured shapes on textures.

The class of an object is its shape; colour, texture, size and rotation say
nothing about it. Nothing is downloaded, and the set takes seconds to make.
"""
import colorsys
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('disc', 'square', 'triangle', 'star', 'ring')
TEXTURES = ('gradient', 'stripes', 'checker', 'noise')
#: Raised whenever the same parameters give other images.
VERSION = 1

_SPLITS = ('train', 'val')
_MAX_OBJECTS = 5
# An object keeps at least this part of its own area, and at least a square
# with this part of the image's side: a sliver has no recognizable shape.
_MIN_VISIBLE = 0.5
_MIN_SIDE = 0.06


def generate_shapes(root,
                    num_train=240,
                    num_val=60,
                    image_size=128,
                    seed=0,
                    progress=True,
                    overwrite=False):
    """Make the shapes data set in COCO layout, unless it is there already.

    The result is ``train/*.png``, ``val/*.png`` (square, 8-bit RGB),
    ``annotations/instances_{train,val}.json`` (masks as compressed RLE,
    category ids from 1 in the order of ``CLASSES``) and ``meta.json`` with
    the parameters. An image holds 1 to 5 objects; later ones cover earlier
    ones, and masks, boxes and areas are those of the visible pixels.

    An image depends only on ``seed``, ``image_size``, its split and its
    index, not on how many there are. Everything is written to a folder
    beside ``root`` that is renamed at the end, so ``root`` is never partial.

    Args:
        root (str or Path): Folder of the data set; parents are created.
        num_train (int): Number of training images, at least 1. Defaults to
            240.
        num_val (int): Number of validation images, at least 1. Defaults to
            60.
        image_size (int): Side of the images in pixels, at least 64; objects
            grow with it. Defaults to 128.
        seed (int): Non-negative seed. Defaults to 0.
        progress (bool): Whether to show a progress bar (on a terminal; one
            line elsewhere). Defaults to True.
        overwrite (bool): Whether to replace a set that was made with other
            parameters or is damaged. Other folders are never replaced.
            Defaults to False.

    Returns:
        Path: ``root``.

    Raises:
        ValueError: If a parameter is out of range.
        FileExistsError: If ``root`` holds something else, or a set that was
            made with other parameters while ``overwrite`` is False.
    """
    params = dict(
        num_train=num_train,
        num_val=num_val,
        image_size=image_size,
        seed=seed)
    for (name, value), low in zip(params.items(), (1, 1, 64, 0)):
        if isinstance(value, bool) or not isinstance(
                value, (int, np.integer)) or value < low:
            raise ValueError(
                f'{name} must be an integer of at least {low}, got {value!r}')
        params[name] = int(value)
    # The same file is what says "made by this function, and complete".
    meta = dict(
        name='mmfeatjnd-shapes', version=VERSION, **params, classes=CLASSES)
    meta = json.loads(json.dumps(meta))

    root = Path(root)
    if _is_ready(root, meta, overwrite):
        return root

    target = Path(os.path.abspath(root))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f'.{target.name}.partial-{os.getpid()}')
    old = target.with_name(f'.{target.name}.old-{os.getpid()}')
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, params, progress)
        (partial / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
        if target.exists():  # empty, or a set that is to be replaced
            os.replace(target, old)
        os.replace(partial, target)
    finally:
        if old.exists() and not target.exists():
            os.replace(old, target)
        for path in (partial, old):
            shutil.rmtree(path, ignore_errors=True)
    return root


def render_image(seed, split, index, image_size=128):
    """Draw one image of the set.

    Args:
        seed (int): Seed of the set.
        split (str): 'train' or 'val'.
        index (int): Index of the image in its split, from 0.
        image_size (int): Side of the image in pixels. Defaults to 128.

    Returns:
        tuple: ``(image, labels, masks)``: uint8 RGB array of shape
        (image_size, image_size, 3), list of N indices into ``CLASSES``, and
        bool array of shape (N, image_size, image_size) with the visible
        pixels of each object; masks do not overlap.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    y, x = np.mgrid[:image_size, :image_size] + 0.5
    image = _texture(rng, x, y, image_size, _muted_colours(rng))
    # 0 is background, k the k-th object; full areas to judge occlusion by
    owner = np.zeros((image_size, image_size), np.uint8)
    labels, areas = [], []
    for _ in range(int(rng.integers(1, _MAX_OBJECTS + 1))):
        for _ in range(20):
            label = int(rng.integers(len(CLASSES)))
            radius = rng.uniform(0.09, 0.21) * image_size
            cx, cy = rng.uniform(0.7 * radius, image_size - 0.7 * radius, 2)
            angle = rng.uniform(0, 2 * np.pi)
            u, v = x - cx, y - cy
            u, v = (np.cos(angle) * u + np.sin(angle) * v,
                    np.cos(angle) * v - np.sin(angle) * u)
            mask = _inside(CLASSES[label], u / radius, v / radius)
            trial = np.where(mask, np.uint8(len(labels) + 1), owner)
            if _all_visible(trial, areas + [mask.sum()]):
                owner = trial
                labels.append(label)
                areas.append(mask.sum())
                image[mask] = _texture(rng, u, v, image_size,
                                       _vivid_colours(rng))[mask]
                break
    image = image + rng.normal(0, 0.02, image.shape)
    image = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    masks = owner == np.arange(1, len(labels) + 1)[:, None, None]
    return image, labels, masks


def _inside(name, u, v):
    """Whether points lie in a shape of circumradius 1 (u, v: its frame)."""
    if name == 'disc':
        return u**2 + v**2 < 0.9**2
    if name == 'square':
        return np.maximum(abs(u), abs(v)) < 0.75
    if name == 'ring':
        return abs(np.hypot(u, v) - 0.75) < 0.25
    # Fold the plane into one half sector of the regular figure: there the
    # outline is one straight edge, from the tip (1, 0) to the inner corner.
    points, inner = dict(triangle=(3, 0.5), star=(5, 0.42))[name]
    half = np.pi / points
    radius = np.hypot(u, v)
    theta = abs((np.arctan2(v, u) + half) % (2 * half) - half)
    px, py = inner * np.cos(half), inner * np.sin(half)
    return (px - 1) * radius * np.sin(theta) > py * (
        radius * np.cos(theta) - 1)


def _all_visible(owner, areas):
    visible = np.bincount(owner.ravel(), minlength=len(areas) + 1)[1:]
    needed = np.maximum(_MIN_VISIBLE * np.array(areas),
                        (_MIN_SIDE * owner.shape[0])**2)
    return bool((visible >= needed).all())


def _texture(rng, x, y, size, colours):
    """Blend two RGB colours by a random pattern over coordinates x, y."""
    kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
    angle = rng.uniform(0, 2 * np.pi)
    period = rng.uniform(0.04, 0.12) * size
    a = np.cos(angle) * x + np.sin(angle) * y
    b = np.cos(angle) * y - np.sin(angle) * x
    if kind == 'gradient':
        blend = (a - a.min()) / (a.max() - a.min())
    elif kind == 'stripes':
        blend = (a / period) % 1 < 0.5
    elif kind == 'checker':
        blend = (np.floor(a / period) + np.floor(b / period)) % 2
    else:
        cells = max(2, int(size / period))
        grid = rng.uniform(0, 1, (cells, cells))
        blend = cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR)
    first, second = colours
    return first + np.asarray(blend, float)[..., None] * (second - first)


def _muted_colours(rng):
    """Two greyish RGB colours of similar lightness, values in [0, 1]."""
    value = rng.uniform(0.25, 0.75)
    return [
        np.array(
            colorsys.hsv_to_rgb(
                rng.uniform(), rng.uniform(0, 0.3),
                value + rng.uniform(-0.1, 0.1))) for _ in range(2)
    ]


def _vivid_colours(rng):
    """Two saturated RGB colours of similar hue, values in [0, 1]."""
    hue = rng.uniform()
    return [
        np.array(
            colorsys.hsv_to_rgb((hue + rng.uniform(-0.08, 0.08)) % 1,
                                rng.uniform(0.6, 1), rng.uniform(0.5, 1)))
        for _ in range(2)
    ]


def _is_ready(root, meta, overwrite):
    """Whether ``root`` holds the set that ``meta`` describes."""
    if not root.is_dir():
        if root.exists() or root.is_symlink():
            raise FileExistsError(
                f'{root} is not a folder; give generate_shapes another one')
        return False
    if not any(root.iterdir()):
        return False
    try:
        found = json.loads((root / 'meta.json').read_text())
        ours = found['name'] == meta['name']
    except (OSError, ValueError, TypeError, KeyError):
        ours = False
    if not ours:
        raise FileExistsError(
            f'{root} holds files but is no shapes data set (it has no '
            'meta.json of one); move it away or choose another folder')
    problems = [
        f'{key} is {found.get(key)!r}, asked for {value!r}'
        for key, value in meta.items() if found.get(key) != value
    ]
    if not problems:
        missing = [
            path for path in _files(meta) if not (root / path).is_file()
        ]
        if not missing:
            return True
        problems = [f'{len(missing)} files are missing, as {missing[0]}']
    if overwrite:
        return False
    raise FileExistsError(
        f'{root} holds another shapes data set: {"; ".join(problems)}. '
        'Delete it, choose another folder, or pass overwrite=True')


def _files(meta):
    for split in _SPLITS:
        yield f'annotations/instances_{split}.json'
        for i in range(meta[f'num_{split}']):
            yield f'{split}/{i:06d}.png'


def _write(folder, params, progress):
    from mmengine.utils import ProgressBar
    bar = None
    if progress:
        total = params['num_train'] + params['num_val']
        print(f'Making the shapes data set: {total} images', flush=True)
        # In a log file each of the bar's updates would be a line.
        bar = ProgressBar(total) if sys.stdout.isatty() else None
    (folder / 'annotations').mkdir(parents=True)
    for split in _SPLITS:
        (folder / split).mkdir()
        images, annotations = [], []
        for i in range(params[f'num_{split}']):
            image, labels, masks = render_image(params['seed'], split, i,
                                                params['image_size'])
            name = f'{i:06d}.png'
            _, png = cv2.imencode('.png', image[..., ::-1])
            (folder / split / name).write_bytes(png.tobytes())
            height, width = image.shape[:2]
            images.append(
                dict(id=i + 1, file_name=name, height=height, width=width))
            for label, mask in zip(labels, masks):
                # Ids start at 1: COCO's matching reads id 0 as "unmatched".
                annotations.append(
                    _annotation(len(annotations) + 1, i + 1, label, mask))
            if bar is not None:
                bar.update()
        categories = [
            dict(id=k + 1, name=name, supercategory='shape')
            for k, name in enumerate(CLASSES)
        ]
        path = folder / 'annotations' / f'instances_{split}.json'
        path.write_text(
            json.dumps(
                dict(
                    info=dict(description='MMFeatJND shapes', **params),
                    images=images,
                    annotations=annotations,
                    categories=categories)))
    if bar is not None:
        print()


def _annotation(ann_id, image_id, label, mask):
    from pycocotools import mask as mask_utils
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(cols[0]), int(rows[0])
    return dict(
        id=ann_id,
        image_id=image_id,
        category_id=label + 1,
        bbox=[x, y, int(cols[-1]) + 1 - x,
              int(rows[-1]) + 1 - y],
        area=int(mask.sum()),
        iscrowd=0,
        segmentation=dict(
            size=list(rle['size']), counts=rle['counts'].decode('ascii')))
