"""Train and test DMV-JND with the tools, on generated images."""
import json
import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmfeatjnd.registry import MODELS

# a classifier of 1 to 2 thousand parameters
CLASSIFIER = """
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[{mean}] * 3, std=[64.] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR', depth=18, stem_channels=4, base_channels=4,
        num_stages=1, strides=(2, ), dilations=(1, ), out_indices=(0, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=4))
"""
CONFIG = """
_base_ = 'mmpretrain::_base_/default_runtime.py'
model = dict(
    type='mmfeatjnd.DMVJND',
    tasks=[
        dict(type='mmfeatjnd.ClassificationTask',
             config='{{ fileDirname }}/first.py', checkpoint='first.pth'),
        dict(type='mmfeatjnd.ClassificationTask',
             config='{{ fileDirname }}/second.py', checkpoint='second.pth',
             input_size=16),
    ],
    net=dict(type='mmfeatjnd.DMVJNDNet', widths=(4, 4, 4)))
data_preprocessor = dict(type='BaseDataPreprocessor')
train_dataloader = dict(
    batch_size=3, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='images',
                 pipeline=[dict(type='LoadImageFromFile'),
                           dict(type='PackInputs')]))
test_dataloader = dict(
    batch_size=4, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=train_dataloader['dataset'])
test_evaluator = [
    dict(type='mmfeatjnd.RelativeAccuracy'),
    dict(type='mmfeatjnd.PeakSNR', data_range=255),
    dict(type='mmfeatjnd.JNDMagnitude'),
]
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=1)
test_cfg = dict()
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six images of two classes, two classifiers, and where they are."""
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / 'images' / 'ab'[i % 2] / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3),
                                     np.uint8)).save(path)
    for i, name in enumerate(('first', 'second')):
        text = CLASSIFIER.format(mean=100. + 50 * i)
        (tmp_path / f'{name}.py').write_text(text)
        torch.manual_seed(i)
        task = MODELS.build(
            dict(
                type='mmfeatjnd.ClassificationTask',
                config=str(tmp_path / f'{name}.py')))
        state = dict(state_dict=task.host.state_dict())
        torch.save(state, tmp_path / f'{name}.pth')
    (tmp_path / 'dmv.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_and_test(folder, run_tool):
    run_tool('train.py', 'dmv.py', '--work-dir', 'trained')
    log, = folder.glob('trained/*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2]
    for row in rows:
        assert row['loss'] == pytest.approx(
            row['loss_task'] + row['loss_magnitude'] +
            row['loss_distribution'])
        assert 0 < row['jnd_magnitude'] < 1 and 0 < row['jnd_target'] <= 1
    checkpoint = folder / 'trained/epoch_1.pth'
    trained = torch.load(checkpoint, weights_only=False)['state_dict']
    for i, name in enumerate(('first', 'second')):
        host = torch.load(folder / f'{name}.pth')['state_dict']
        for key, value in host.items():
            assert torch.equal(trained[f'tasks.{i}.host.{key}'], value)
        (folder / f'{name}.pth').unlink()  # no longer needed

    def metrics(name, *options):
        run_tool('test.py', 'dmv.py', checkpoint, '--work-dir', name,
                 *options)
        path, = folder.glob(f'{name}/*/*.json')
        return json.loads(path.read_text())

    jnd = metrics('jnd')
    names = ('first', 'second')
    rca = [jnd[f'rca/{name}'] for name in names]
    assert jnd['rca/mean'] == pytest.approx(sum(rca) / 2)
    assert {f'{kind}/{name}' for name in names
            for kind in ('accuracy', 'accuracy_clean')} <= jnd.keys()
    assert 0 < jnd['jnd_magnitude'] < 1 and 0 < jnd['jnd_target'] <= 1
    # N0 in [-1, 1] is at most the RMSE, which is 2 / 10^(PSNR / 20)
    assert jnd['jnd_magnitude'] <= 2 / 10**(jnd['psnr_of_mean'] / 20)

    noise = metrics(
        'noise', '--cfg-options', 'model.test_cfg.distortion=gaussian',
        'model.test_cfg.seed=1')
    saved = Config.fromfile(folder / 'noise/dmv.py')
    assert saved.model.test_cfg == dict(distortion='gaussian', seed=1)
    # of the same power, elsewhere
    assert noise['psnr'] == pytest.approx(jnd['psnr'], abs=0.01)
    assert noise['jnd_magnitude'] != jnd['jnd_magnitude']
    assert noise['jnd_target'] == pytest.approx(jnd['jnd_target'])

    half = metrics('half', '--cfg-options', 'model.test_cfg.strength=0.5')
    assert half['psnr'] == pytest.approx(
        jnd['psnr'] + 20 * math.log10(2), abs=1e-3)


    run_tool('analysis_tools/dmv_jnd_curve.py', 'dmv.py', checkpoint,
             '--strengths', 1, 0.5, '--out', 'curve')
    rows = json.loads((folder / 'curve/dmv_jnd.json').read_text())
    assert [(r['distortion'], r['strength']) for r in rows] == [
        ('dmv-jnd', 1), ('dmv-jnd', 0.5), ('gaussian', 1), ('gaussian', 0.5)]
    for row, tested in zip(rows, (jnd, half)):
        for name in ('rca/mean', 'psnr', 'jnd_magnitude'):
            assert row['metrics'][name] == pytest.approx(tested[name])
    assert (folder / 'curve/dmv_jnd.png').is_file()
    # checkpoints of one name, and one curve of their single points
    (folder / 'other').mkdir()
    (folder / 'other/epoch_1.pth').write_bytes(checkpoint.read_bytes())
    both = (checkpoint, folder / 'other/epoch_1.pth')
    run_tool('analysis_tools/dmv_jnd_curve.py', 'dmv.py', *both,
             '--strengths', 1, '--out', 'both')
    rows = json.loads((folder / 'both/dmv_jnd.json').read_text())
    assert [r['series'] for r in rows] == ['dmv-jnd', 'gaussian'] * 2
    # several points of each are a curve of each
    run_tool('analysis_tools/dmv_jnd_curve.py', 'dmv.py', *both,
             '--strengths', 1, 0.5, '--distortions', 'dmv-jnd', '--out', '.')
    rows = json.loads((folder / 'dmv_jnd.json').read_text())
    assert [r['series'] for r in rows] == [
        f'dmv-jnd of {name}/epoch_1' for name in ('trained', 'other')
        for _ in range(2)
    ]
    assert (folder / 'dmv.py').read_text() == CONFIG
    for name, checkpoints in (('one', both[:1]), ('two', both)):
        run_tool('analysis_tools/dmv_jnd_figure.py', 'dmv.py', *checkpoints,
                 '--images', 0, 3, '--out', f'{name}.png')
    # the config beside the picture is the user's
    assert (folder / 'dmv.py').read_text() == CONFIG
    with pytest.raises(SystemExit, match='error: --images 99: the test set'):
        run_tool('analysis_tools/dmv_jnd_figure.py', 'dmv.py', checkpoint,
                 '--images', 99, '--out', 'no.png')
    one, two = (Image.open(folder / f'{n}.png') for n in ('one', 'two'))
    assert two.width > 1.5 * one.width


def test_a_missing_checkpoint_of_a_task(folder, run_tool):
    (folder / 'second.pth').unlink()
    with pytest.raises(SystemExit, match="error: .*'second'.*second.pth"):
        run_tool('train.py', 'dmv.py', '--work-dir', 'w')


@pytest.mark.parametrize('argv, reason', [
    (['no.pth', '--out', 'c'], 'no.pth\n  there is no such file'),
    (['first.pth', '--out', 'c'], 'first.pth. is not a checkpoint'),
    (['first.pth', 'first.pth', '--out', 'c'], 'checkpoint is given twice'),
    (['first.pth', '--out', 'dmv.py'], 'it is a file, but a folder'),
    (['first.pth', '--out', 'dmv.py/c'], 'dmv.py is no folder'),
])
def test_a_curve_is_told_what_is_wrong_before_it_runs(folder, run_tool, argv,
                                                     reason):
    with pytest.raises(SystemExit, match=f'error: .*{reason}'):
        run_tool('analysis_tools/dmv_jnd_curve.py', 'dmv.py', *argv)


@pytest.mark.parametrize('strength', ['nan', 'inf', '-1', '0'])
def test_no_such_strength(folder, run_tool, strength, capsys):
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/dmv_jnd_curve.py', 'dmv.py', 'first.pth',
                 '--out', 'c', f'--strengths={strength}')
    assert 'is not positive and finite' in capsys.readouterr().err
