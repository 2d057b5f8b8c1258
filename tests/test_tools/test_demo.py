"""The whole demo, on few images and for few steps."""
import functools
import importlib.util
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmfeatjnd.datasets import generate_shapes

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'demo.py'


@pytest.fixture
def demo_module():
    spec = importlib.util.spec_from_file_location('demo', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(monkeypatch, tmp_path, demo_module):
    """Run the script with a smaller data set and shorter schedules."""
    module = demo_module
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
        if f.is_file() and f.name not in ('curve.json', 'demo.png')
        # a Visualizer lives as long as the process
        and not {'test', 'vis_data'} & set(f.parts)
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
        ('clean', 0.0),
        *((d, s) for d in ('featjnd', 'static', 'permuted', 'gaussian')
          for s in (1.0, 2.0, 4.0))
    ]
    for row in rows:
        assert row['nrmse_measured'] == pytest.approx(row['nrmse'], rel=1e-3)
        assert 'coco/segm_mAP' in row['metrics']
    assert '| featjnd' in text and f'Picture: {out}/demo.png' in text
    picture = cv2.imread(str(out / 'demo.png'))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20

    # what the README does with its checkpoint
    root = SCRIPT.parents[1]
    code = re.search(
        r'```python\n(from mmfeatjnd.apis import FeatJNDInf.*?)```',
        (root / 'README.md').read_text(), re.DOTALL)[1]
    for old, new in (('configs/', f'{root}/configs/'), ('iter_160', 'iter_2'),
                     ('work_dirs/demo', str(out)),
                     ("'answers'", repr(str(tmp_path / 'answers')))):
        assert old in code
        code = code.replace(old, new)
    exec(code, {})
    for name in ('predictions', 'changed', 'maps'):
        assert any((tmp_path / 'answers' / name).rglob('*.*')), name

    before = stamps(out)
    (out / 'demo.png').unlink()
    demo()
    assert stamps(out) == before
    assert capsys.readouterr().out.count('done before, skipped') == 2
    assert (out / 'demo.png').is_file()


def instances(labels, masks, **kwargs):
    return InstanceData(
        labels=torch.tensor(labels), masks=masks, **kwargs)


@pytest.mark.parametrize('labels, scores, overlap, right', [
    ([0, 1], [0.9, 0.6], 8, True),
    ([1, 0], [0.9, 0.6], 8, False),  # the classes are not right
    ([0, 1], [0.9, 0.4], 8, False),  # one is not found
    ([0, 1, 1], [0.9, 0.6, 0.6], 8, False),  # one is found twice
    ([0, 1, 1], [0.9, 0.6, 0.4], 8, True),
    ([0, 1], [0.9, 0.6], 5, False),  # a mask is not right
])
def test_when_the_host_is_right(demo_module, labels, scores, overlap, right):
    masks = np.zeros((2, 16, 16), np.uint8)
    masks[0, :8, :8] = masks[1, 8:, 8:] = 1
    found = masks[[0, 1, 1][:len(labels)]].astype(bool)
    found[0, :, overlap:] = False
    sample = DetDataSample(
        gt_instances=instances([0, 1], BitmapMasks(masks, 16, 16)),
        pred_instances=instances(
            labels, torch.from_numpy(found), scores=torch.tensor(scores)))
    assert demo_module.is_right(sample) is right


def test_the_picture(demo_module, tmp_path):
    """A row an image, or the curve alone where the host gets none right."""
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, 4:12, 4:12] = True
    sample = DetDataSample(
        pred_instances=instances(
            [0], masks, scores=torch.tensor([0.9]),
            bboxes=torch.tensor([[4., 4, 12, 12]])))
    file = str(tmp_path / 'image.png')
    cv2.imwrite(file, np.full((16, 16, 3), 255, np.uint8))
    sample.set_metainfo(dict(img_path=file))
    rows = [
        dict(
            distortion=name,
            nrmse=nrmse,
            nrmse_measured=nrmse,
            participation_ratio=0.3,
            seed=0,
            metrics={demo_module.METRIC: value}) for name, nrmse, value in
        (('clean', 0, 0.5), ('featjnd', 2, 0.5), ('gaussian', 2, 0.2))
    ]
    meta = dict(classes=['disc'], palette=[(255, 0, 0)])
    found = dict.fromkeys(demo_module.TITLES, sample)
    found['map'] = torch.full((16, 16), 0.5)
    for name, predictions in (('some', [found] * 2), ('none', [])):
        path = tmp_path / f'{name}.png'
        demo_module.draw(predictions, rows, meta, path)
        red = (cv2.imread(str(path)) == [102, 102, 255]).all(-1).sum()
        assert (red > 1000) == (name == 'some')
