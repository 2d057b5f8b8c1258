"""On tiny random classifiers and made-up images."""
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import (
    HOMOGENEITY,
    CheckpointError,
    ConfigError,
    DMVJNDSetting,
    measure_dmv_jnd,
    measure_dmv_jnd_codec,
)


def test_settings(trained_jnd):
    settings = [
        DMVJNDSetting(),
        DMVJNDSetting(strength=0.5),
        DMVJNDSetting('gaussian'),
        DMVJNDSetting('gaussian', seed=1),
        DMVJNDSetting('random-sign')
    ]
    rows = measure_dmv_jnd(*trained_jnd, settings)
    full, half, noise, other, signs = (row['metrics'] for row in rows)
    assert [r['strength'] for r in rows] == [1, 0.5, 1, 1, 1]
    # half the amplitude is 6.02 dB
    assert half['psnr'] - full['psnr'] == pytest.approx(20 * np.log10(2), 1e-3)
    assert half['jnd_magnitude'] == pytest.approx(full['jnd_magnitude'] / 2)
    assert noise['psnr'] == pytest.approx(full['psnr'], abs=0.01)
    assert other['jnd_magnitude'] != noise['jnd_magnitude']
    assert signs['psnr'] == pytest.approx(full['psnr'], abs=0.01)
    assert 'accuracy_clean/a' in full


def test_splits(trained_jnd, capsys):
    cfg, checkpoint = trained_jnd
    train, = measure_dmv_jnd(cfg, checkpoint, split='train')
    again, = measure_dmv_jnd(cfg, checkpoint, split='train')
    test, = measure_dmv_jnd(cfg, checkpoint)
    assert train == again
    assert train['metrics']['psnr'] != test['metrics']['psnr']
    # the same images by way of the test's data set
    cfg = Config(cfg.to_dict())
    cfg.test_dataloader.dataset.data_root = \
        cfg.train_dataloader.dataset.data_root
    assert measure_dmv_jnd(cfg, checkpoint) == [train]
    # the first and the third of four
    one, other = (measure_dmv_jnd(_only(cfg, i), checkpoint) for i in (0, 2))
    both, = measure_dmv_jnd(cfg, checkpoint, every=2)
    for name in ('psnr', 'jnd_target', 'rca/a'):
        assert both['metrics'][name] == pytest.approx(
            (one[0]['metrics'][name] + other[0]['metrics'][name]) / 2)


def _only(cfg, index):
    cfg = Config(cfg.to_dict())
    cfg.test_dataloader.dataset.indices = [index]
    return cfg


def test_a_checkpoint_of_another_model(trained_jnd, tmp_path):
    cfg, checkpoint = trained_jnd
    state = torch.load(checkpoint)['state_dict']
    state = {k: v for k, v in state.items() if not k.startswith('net.')}
    torch.save(dict(state_dict=state), tmp_path / 'tasks.pth')
    with pytest.raises(CheckpointError, match='(?s)tasks.pth.*net.encoder'):
        measure_dmv_jnd(cfg, str(tmp_path / 'tasks.pth'))


def test_homogeneity_is_the_papers():
    assert HOMOGENEITY == pytest.approx([i / 9 for i in range(8, 0, -1)])


def test_codec(trained_jnd):
    rows = measure_dmv_jnd_codec(
        *trained_jnd, scales=(0.5, 2.0), steps=(4, 64), qualities=(10, 90))
    found = {(r['codec'], r['setting']): r for r in rows}
    for name, coarse, fine in (('dmv-jnd', 2.0, 0.5), ('uniform', 64, 4),
                               ('jpeg', 10, 90)):
        coarse, fine = found[name, coarse], found[name, fine]
        assert 0 < coarse['bytes'] < fine['bytes']
        assert coarse['metrics']['psnr'] < fine['metrics']['psnr']
    assert found['uniform', 4]['metrics']['psnr'] > 40
    # the right order of colours: otherwise far less
    assert found['jpeg', 90]['metrics']['psnr'] > 25


def test_another_model(trained_jnd):
    cfg, checkpoint = trained_jnd
    cfg = Config(cfg.to_dict())
    cfg.model = cfg.model.tasks[0].config.model
    with pytest.raises(ConfigError, match='mmfeatjnd.DMVJND'):
        measure_dmv_jnd(cfg, checkpoint)
