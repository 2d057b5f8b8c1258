import io

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmfeatjnd.datasets import Recompress
from mmfeatjnd.datasets.recompress import FORMATS


def photo():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return np.asarray(small.resize((60, 40)))


@pytest.mark.parametrize('name', FORMATS)
def test_fewer_bytes_and_more_error(name):
    pixels, sizes, errors = photo(), [], []
    for quality in (10, 50, 95):
        found = Recompress(name, quality)(dict(img=pixels, other=1))
        assert found['img'].shape == pixels.shape and found['other'] == 1
        assert found['img'].dtype == np.uint8
        sizes.append(found['coded_bytes'])
        errors.append(np.abs(found['img'].astype(int) - pixels).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors)[::-1]
    assert errors[-1] < 3


def test_it_is_what_pillow_writes():
    """Of the picture in the order of the file, not of the loader."""
    pixels = photo()
    found = Recompress('webp', 60)(dict(img=pixels))
    file = io.BytesIO()
    Image.fromarray(pixels[..., ::-1]).save(file, 'webp', quality=60)
    assert found['coded_bytes'] == len(file.getvalue())
    expected = np.asarray(Image.open(file).convert('RGB'))[..., ::-1]
    assert np.array_equal(found['img'], expected)


def test_it_is_built_in_any_scope_and_checks_its_arguments():
    built = TRANSFORMS.build(
        dict(type='mmfeatjnd.Recompress', format='avif', quality=30))
    assert repr(built) == "Recompress(format='avif', quality=30)"
    for kwargs in (dict(format='bpg', quality=3),
                   dict(format='jpeg', quality=101)):
        with pytest.raises(ValueError):
            Recompress(**kwargs)
