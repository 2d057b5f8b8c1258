"""The whole demo, on few images and for few steps."""
import functools
import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmfeatjnd.datasets import generate_shapes

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'demo.py'


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Run the script with a smaller data set and shorter schedules."""
    spec = importlib.util.spec_from_file_location('demo', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    load_config = module.load_config

    def load_short(*args):
        cfg = load_config(*args)
        if 'max_iters' in cfg.train_cfg:
            cfg.train_cfg.max_iters = 2
        else:
            cfg.train_cfg.update(max_epochs=2, val_interval=2)
            cfg.param_scheduler.total_steps = 2
        return cfg

    monkeypatch.setattr(module, 'load_config', load_short)
    monkeypatch.setattr(
        module, 'generate_shapes',
        functools.partial(generate_shapes, num_train=8, num_val=2))
    monkeypatch.setattr(
        sys, 'argv', ['demo.py', '--work-dir', str(tmp_path / 'out')])
    return module.main


def stamps(folder):
    """When each file was written, but for what is drawn anew."""
    return {
        f.relative_to(folder).as_posix(): f.stat().st_mtime_ns
        for f in folder.rglob('*')
        if f.is_file() and f.name != 'overlays.png'
        and 'vis_image' not in f.parts
    }


@pytest.mark.slow
def test_demo(demo, tmp_path, capsys):
    demo()
    out = tmp_path / 'out'
    text = capsys.readouterr().out
    assert 'skipped' not in text

    for name, last in (('host', 'epoch_2.pth'), ('featjnd', 'iter_2.pth')):
        assert (out / name / 'done').is_file()
        assert (out / name / 'last_checkpoint').read_text().strip() == str(
            out / name / last)
    host, featjnd = (
        torch.load(out / name, weights_only=False)['state_dict']
        for name in ('host/epoch_2.pth', 'featjnd/iter_2.pth'))
    # the estimator was trained on this host, which stayed as it was
    assert torch.equal(featjnd['backbone.conv1.weight'],
                       host['backbone.conv1.weight'])
    assert any('estimators' in k for k in featjnd.keys() - host.keys())

    rows = json.loads((out / 'curve.json').read_text())
    assert [(r['distortion'], r['nrmse']) for r in rows] == [
        ('clean', 0.0), *((d, s) for d in ('featjnd', 'gaussian')
                          for s in (0.5, 1.0, 1.5))
    ]
    for row in rows:
        assert row['nrmse_measured'] == pytest.approx(row['nrmse'], rel=1e-3)
        assert 'coco/segm_mAP' in row['metrics']
    assert '| featjnd' in text and f'Plot:     {out}/curve.png' in text
    curve, overlays = (
        cv2.imread(str(out / f'{name}.png')) for name in ('curve', 'overlays'))
    # two images, twice as large: three predictions and the tolerance
    assert overlays.shape[0] > 2 * 256 and overlays.shape[1] >= 4 * 256
    for picture in (curve, overlays):
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20

    before = stamps(out)
    (out / 'overlays.png').unlink()
    demo()
    assert stamps(out) == before
    assert capsys.readouterr().out.count('done before, skipped') == 3
    assert (out / 'overlays.png').is_file()
