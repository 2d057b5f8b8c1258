"""FeatJND on pictures, on top of the hosts' own inferencers."""
import copy
import os

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import (
    CheckpointError,
    FeatJNDInferencer,
    build_model,
    changing_features,
    save_estimator,
)
from mmfeatjnd.models import Perturbation, Quantization, find_neck

PIPELINES = dict(
    classifier=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    segmentor=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')],
    detector=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='PackDetInputs', meta_keys=(
            'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
    ])
LIBRARY = dict(classifier='mmpretrain', segmentor='mmseg', detector='mmdet')
VISUALIZER = dict(classifier='UniversalVisualizer',
                  segmentor='SegLocalVisualizer',
                  detector='DetLocalVisualizer')


@pytest.fixture
def given(configs, tmp_path):
    """A FeatJND config and its checkpoint, of a kind of host; pictures."""

    def make(kind):
        model = configs[1](kind, estimator=dict(mode='envelope'))
        cfg = Config(dict(
            default_scope=LIBRARY[kind], model=model,
            visualizer=dict(type=VISUALIZER[kind], vis_backends=[],
                            name='visualizer'),
            test_dataloader=dict(dataset=dict(
                type='CocoDataset', pipeline=PIPELINES[kind])),
            test_pipeline=PIPELINES[kind]))
        torch.manual_seed(0)
        built = build_model(copy.deepcopy(cfg))
        for estimator in find_neck(built).estimators:
            estimator.initial.fill_(1)
            estimator.channels.updates.fill_(1)
        meta = dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd'),
                                      palette=[[9, 9, 9]] * 4))
        torch.save(dict(state_dict=built.state_dict(), meta=meta),
                   tmp_path / 'model.pth')
        folder = tmp_path / 'pictures'
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        for i in range(3):
            cv2.imwrite(str(folder / f'{i}.png'),
                        rng.integers(0, 256, (32, 24, 3), np.uint8))
        return cfg, str(tmp_path / 'model.pth'), folder, built

    return make


@pytest.mark.parametrize('kind', LIBRARY)
def test_every_library(given, tmp_path, kind):
    cfg, checkpoint, folder, _ = given(kind)
    inferencer = FeatJNDInferencer(cfg, checkpoint, device='cpu')
    out = tmp_path / 'out'
    answers = inferencer(str(folder), Perturbation('featjnd', 2.0),
                         batch_size=2, out_dir=str(out))
    assert len(answers) == 3
    height = 64 if kind == 'detector' else 32
    for a in answers:
        assert a.measured['nrmse'] == pytest.approx(2.0, rel=1e-3)
        assert tuple(a.map.shape) == (height, height * 3 // 4)
        assert (a.map > 0).all()
        assert type(a.prediction) is type(a.changed)
    assert sorted(os.listdir(out)) == ['changed', 'maps', 'predictions']
    assert sorted(os.listdir(out / 'maps')) == ['0.png', '1.png', '2.png']
    assert all(sum(map(len, (f for *_, f in os.walk(out / name)))) == 3
               for name in ('predictions', 'changed'))
    # a batch of one says the same
    alone, = inferencer(cv2.imread(str(sorted(folder.iterdir())[0])),
                        Perturbation('featjnd', 2.0))
    torch.testing.assert_close(alone.map, answers[0].map)


def test_bits_and_a_host_without_an_estimator(given, tmp_path):
    cfg, checkpoint, folder, built = given('classifier')
    inferencer = FeatJNDInferencer(cfg, checkpoint, device='cpu')
    picture = str(sorted(folder.iterdir())[0])
    answer, = inferencer(picture, Quantization('one-step', coded=True))
    assert answer.measured['coded_bytes'] > 0
    assert answer.measured['bits_per_element'] > 0

    plain = copy.deepcopy(cfg)
    plain.model.type = plain.model.pop('host')
    plain.model.neck = plain.model.neck.neck
    for name in ('training', 'discrepancy', 'objective'):
        plain.model.pop(name, None)
    state = {k.replace('neck.neck.', 'neck.'): v
             for k, v in built.state_dict().items() if 'estimators' not in k}
    torch.save(state, tmp_path / 'plain.pth')
    answer, = FeatJNDInferencer(plain, str(tmp_path / 'plain.pth'),
                                device='cpu')(picture)
    assert answer.map is None and answer.measured['nrmse'] == pytest.approx(
        0.5, rel=1e-3)
    save_estimator(built, tmp_path / 'jnd.safetensors')
    with_file, = FeatJNDInferencer(
        plain, str(tmp_path / 'plain.pth'),
        estimator=str(tmp_path / 'jnd.safetensors'), device='cpu')(picture)
    ours, = inferencer(picture)
    torch.testing.assert_close(with_file.map, ours.map)
    assert torch.equal(with_file.changed.pred_score, ours.changed.pred_score)

    with pytest.raises(CheckpointError, match='lacks'):
        torch.save(dict(list(state.items())[5:]), tmp_path / 'part.pth')
        FeatJNDInferencer(plain, str(tmp_path / 'part.pth'), device='cpu')


def test_features_change_inside_only(build, batch):
    model = build('classifier', plain=True)
    inputs, samples = batch('classifier')
    with torch.no_grad():
        before = model(inputs, samples)
        with changing_features(model, Perturbation('gaussian', 0.5)) as runs:
            inside = model(inputs, samples)
        after = model(inputs, samples)
    torch.testing.assert_close(runs[0].measured['nrmse'],
                               torch.full((2, ), 0.5), check_dtype=False)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[0], inside[0])
