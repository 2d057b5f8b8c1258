"""The benchmark of DMV-JND on made-up images, one small classifier as task."""
import json
import sys
from functools import partial

import common
import dmv_jnd
import pytest

from mmfeatjnd.apis import measure_dmv_jnd, measure_dmv_jnd_codec

TASK = """
_base_ = '{root}/configs/dmv_jnd/classifiers/resnet18-w16_cifar10.py'
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64, num_classes=2))
data_preprocessor = dict(num_classes=2)
train_cfg = dict(max_epochs=1)
param_scheduler = None
"""
DMV_JND = """
_base_ = '{root}/configs/dmv_jnd/dmv-jnd_4xnarrow_cifar10.py'
model = dict(
    tasks=[
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{folder}/task.py',
            checkpoint='none.pth',
            input_size=32)
    ],
    net=dict(widths=(8, 8, 8)))
train_cfg = dict(max_iters=2)
param_scheduler = None
"""


@pytest.fixture
def protocol(tiny, loaders, monkeypatch):
    """The protocol 'tiny', its config, and a 'CIFAR-10' that is as small."""
    for name, text in (('task', TASK), ('dmv', DMV_JND)):
        (tiny / f'{name}.py').write_text(
            text.format(root=common.ROOT, folder=tiny) + loaders)
    settings = dict(
        config=str(tiny / 'dmv.py'),
        seeds=(0, ),
        scales=dict(clipped=(2.0, )),
        every=1,
        train_every=2)
    monkeypatch.setitem(dmv_jnd.PROTOCOLS, 'tiny', settings)
    monkeypatch.setitem(common.BENCHMARKS, 'cifar10',
                        common.BENCHMARKS['tiny'])
    monkeypatch.setattr(dmv_jnd, 'UNSEEN', tiny / 'host.py')
    # fewer of everything
    monkeypatch.setattr(dmv_jnd, 'VARIANTS', {'clipped': {}})
    monkeypatch.setattr(dmv_jnd, 'CONTROLS', ('gaussian', ))
    monkeypatch.setattr(
        dmv_jnd, 'measure_dmv_jnd_codec',
        partial(
            measure_dmv_jnd_codec, scales=[1.0], steps=[16], qualities=[50]))
    return settings


def run(folder, monkeypatch):
    """Measure and publish; the result, and how often DMV-JND was measured."""
    calls = []

    def measure(cfg, checkpoint, points, split, every):
        calls.append((split, every))
        return measure_dmv_jnd(cfg, checkpoint, points, split, every)

    monkeypatch.setattr(dmv_jnd, 'measure_dmv_jnd', measure)
    monkeypatch.setattr(sys, 'argv', [
        'dmv_jnd.py', 'tiny', '--work-dir',
        str(folder / 'work' / 'dmv_jnd')
    ])
    dmv_jnd.main()
    return json.loads(
        (folder / 'results/dmv_jnd_cifar10.json').read_text()), calls


@pytest.mark.slow
def test_what_is_measured_once_is_taken_for_the_same_settings(
        tiny, protocol, monkeypatch):
    full, calls = run(tiny, monkeypatch)
    # at the paper's scale, and at twice it
    assert calls == 2 * [('test', 1), ('train', 2)]
    assert run(tiny, monkeypatch) == (full, [])
    assert (full['train_images'], full['test_images']) == (8, 8)
    assert full['estimator_draws'] == 2 * 4  # 2 iterations of 4
    assert full['reduced'] is True  # not the classifiers of the claim
    assert {r['split'] for r in full['rows']} == {'test', 'train'}
    assert full['protocol'] == common.PROTOCOL
    assert len(full['unseen']) == len(full['codec']) == 3

    # fewer test images are measured anew, training images are not
    protocol['every'] = 4
    thinned, calls = run(tiny, monkeypatch)
    assert calls == 2 * [('test', 4)]

    # another task, another DMV-JND
    before = set((tiny / 'work' / 'dmv_jnd' / 'dmv').iterdir())
    config = tiny / 'task.py'
    config.write_text(
        config.read_text().replace('max_epochs=1', 'max_epochs=2'))
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--train-only', 'clipped',
                                      '1', '0'])
    dmv_jnd.main()
    assert len(list((tiny / 'work' / 'dmv_jnd').glob('task_*'))) == 2
    assert len(set((tiny / 'work' / 'dmv_jnd' / 'dmv').iterdir()) -
               before) == 1
