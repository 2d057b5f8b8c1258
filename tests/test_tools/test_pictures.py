"""Hosts on pictures that went through a picture codec."""
import pytest
from mmengine.config import Config

from mmfeatjnd.apis import measure_curve
from mmfeatjnd.apis.pictures import measure_pictures, through_codec
from mmfeatjnd.utils import ConfigError


def of(given):
    return Config.fromfile(given[0]), str(given[1])


def test_rows_of_a_classifier(small):
    rows = measure_pictures(*of(small), dict(webp=[5, 100], jpeg=[60]),
                            ['input'])
    clean, coarse, fine, jpeg = rows
    assert clean['policy'] == 'clean' and 'kl' not in clean['metrics']
    assert [r['policy'] for r in rows[1:]] == ['webp', 'webp', 'jpeg']
    assert coarse['coded_bytes'] < fine['coded_bytes']
    assert coarse['metrics']['kl'] > fine['metrics']['kl'] > 0
    assert jpeg['bits_per_pixel'] == pytest.approx(
        8 * jpeg['coded_bytes'] / 32**2)


def test_every_picture_counts_with_persistent_workers(small):
    cfg, checkpoint = of(small)
    cfg.test_dataloader.update(batch_size=1, num_workers=1,
                               persistent_workers=True)
    one, two = (
        test(cfg, checkpoint)[0] for test in (
            lambda *of: measure_pictures(*of, {}, draws=50),
            lambda *of: measure_curve(*of, [], [], draws=50)))
    assert one['draws'] == two['draws']


def test_rows_of_a_detector(boxes):
    rows = measure_pictures(*of(boxes), dict(avif=[50]))
    assert [r['place'] for r in rows[1:]] == ['full', 'input']
    assert all(r['metrics']['kl'] > 0 for r in rows[1:])


def test_where_a_picture_is_encoded(boxes):
    cfg = of(boxes)[0]
    for place in ('full', 'input'):
        pipeline = through_codec(
            cfg, dict(format='webp', quality=9),
            place).test_dataloader.dataset.pipeline
        names = [str(t['type']) for t in pipeline]
        at = names.index('mmfeatjnd.Recompress')
        assert (names[at - 1] == 'LoadImageFromFile') == (
            place == 'full' or 'Resize' not in names)
        assert 'coded_bytes' in pipeline[-1]['meta_keys']
        assert 'ori_shape' in pipeline[-1]['meta_keys']
    assert 'mmfeatjnd.Recompress' not in str(cfg)
    with pytest.raises(ValueError, match="'out'"):
        through_codec(cfg, dict(format='webp', quality=9), 'out')
    cfg.test_dataloader.dataset.pipeline = [dict(type='PackInputs')]
    with pytest.raises(ConfigError, match='must begin with'):
        through_codec(cfg, dict(format='webp', quality=9), 'full')
