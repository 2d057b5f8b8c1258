"""Thresholds that are measured, on a host made small."""
import copy
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmfeatjnd.apis import JNDMeter, build_model, measure_jnd
from mmfeatjnd.functional import gaussian_noise, image_keys, over_channels
from mmfeatjnd.models import CheckpointError, FeatJNDNeck, image_ids
from mmfeatjnd.models.operations.probe import Part, Probe
from mmfeatjnd.utils import ConfigError


@pytest.fixture(scope='module')
def sensitive(small_classifier, tmp_path_factory):
    """A config and a checkpoint with statistics, but random weights."""
    cfg, _ = small_classifier
    cfg = copy.deepcopy(cfg)
    cfg.model.neck.estimator.mode = 'sensitivity'
    cfg.work_dir = str(tmp_path_factory.mktemp('measured'))
    torch.manual_seed(0)
    model = build_model(cfg)
    estimator = model.neck.estimators[0]
    estimator.initial.fill_(1)
    estimator.channels.mean_square.uniform_(0.5, 2)
    estimator.known.map.normal_()
    estimator.known.others.normal_()
    path = f'{cfg.work_dir}/model.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return cfg, path


@pytest.fixture
def meter(sensitive):
    return JNDMeter(*sensitive, draws=2, fisher_draws=32, rows=15)


def test_the_answer_is_as_far_away_as_was_asked(meter):
    """At the threshold, by a pass of its own."""
    batch = next(iter(meter.test.dataloader()))
    whole = meter.measure(batch, tokens=3, groups=2, nats=[0.01, 0.002],
                          image_nats=[0.02])
    found = whole['thresholds']
    assert [(r['unit'], r['nats']) for r in found] == [
        *[('token', 0.01), ('token', 0.002)] * 3,
        *[('channel-group', 0.01), ('channel-group', 0.002)] * 2,
        ('image', 0.02)]
    model, neck = meter.test.model, meter.test.neck
    data = model.data_preprocessor(batch, False)
    image, = image_ids(batch['data_samples'], 1)
    estimator = neck.estimators[0]

    def logits(change):
        with torch.no_grad(), neck.changing(change):
            return model(data['inputs'], mode='tensor')

    clean = logits(lambda x, level: x).log_softmax(1)
    for row in found:
        values = []
        for draw in range(2):
            key = image_keys([f'{image}/{draw}'])

            def change(x, level):
                noise = gaussian_noise(key, x.shape[1:], level)
                noise = noise * over_channels(estimator.channels.std, x)
                if row['unit'] == 'token':
                    y, z = divmod(row['index'], x.size(3))
                    only = torch.zeros_like(noise)
                    only[..., y, z] = 1
                    noise = noise * only
                elif row['unit'] == 'channel-group':
                    first = row['index']
                    only = torch.zeros_like(noise)
                    only[:, first:first + x.size(1) // 2] = 1
                    noise = noise * only
                return x + 2**row['log2'] * noise

            changed = logits(change).log_softmax(1)
            values.append(float(F.kl_div(
                changed, clean, log_target=True, reduction='sum')))
        if row['relation']:
            assert (np.mean(values) > row['nats']) == (row['relation'] == '<')
        else:
            assert np.mean(values) == pytest.approx(row['nats'], rel=0.05)
    # small noise costs what the Fisher information of the image says
    assert found[-1]['predicted']['fisher'] == pytest.approx(
        found[-1]['log2'], abs=0.7)
    first, second, *_ = whole['response']
    for name, value in first['predicted'].items():  # KL ~ s^2
        assert second['predicted'][name] == pytest.approx(2 * value)
    last = whole['response'][-1]  # the rest of so weak a host is linear
    assert last['measured'] == pytest.approx(
        last['predicted']['fisher'], rel=0.8)


def test_predictions(meter):
    batch = next(iter(meter.test.dataloader()))
    found = meter.measure(batch, tokens=4, groups=1,
                          image_nats=[0.01, 0.04])['thresholds']
    tokens = found[:4]
    # one number for all of a level
    assert np.ptp([t['predicted']['level-gain'] for t in tokens]) == 0
    known = meter.test.neck.estimators[0].known
    feature = torch.zeros(1, 16, 16, 16)
    for t in tokens:
        w = float(known.static(feature).flatten()[t['index']].exp())
        assert 2**t['predicted']['static'] == pytest.approx(
            (2 * 0.01 / w)**0.5, rel=1e-4)
    group, small, large = found[4:]
    # all channels of all tokens are the image
    assert group['predicted'] == pytest.approx(
        dict(fisher=small['predicted']['fisher']), abs=1e-3)
    # KL ~ s^2
    for name, value in small['predicted'].items():
        assert large['predicted'][name] == pytest.approx(value + 1)


def test_a_run_that_was_cut_goes_on(meter, tmp_path):
    asked = dict(images=3, tokens=1, groups=1, image_nats=[0.01])
    whole = measure_jnd(meter, tmp_path / 'a/thresholds.jsonl', **asked)
    assert len({row['image'] for row in whole}) == 3
    lines = (tmp_path / 'a/thresholds.jsonl').read_text().splitlines()
    cut = tmp_path / 'cut.jsonl'
    kept = json.loads(lines[1])
    kept['thresholds'][0]['log2'] = 99.0  # is not measured again
    cut.write_text('\n'.join([lines[0], json.dumps(kept), lines[2][:30]]))
    found = measure_jnd(meter, cut, **asked)
    assert found[0]['thresholds'][0]['log2'] == 99
    assert found[1:] == whole[1:]
    assert cut.read_text().splitlines()[2:] == lines[2:]
    with pytest.raises(ConfigError, match=r'other settings \(tokens\)'):
        measure_jnd(meter, cut, **dict(asked, tokens=2))


def test_what_cannot_be_measured(sensitive, small_classifier, tmp_path):
    cfg, checkpoint = sensitive
    for name in ('gaussian', 'outside-boxes'):
        with pytest.raises(ValueError, match=f'{name}.* no token map'):
            JNDMeter(cfg, checkpoint, predictors=[name])
    with pytest.raises(CheckpointError, match="mode 'sensitivity'"):
        other, _ = small_classifier
        other = copy.deepcopy(other)
        other.work_dir = str(tmp_path)
        torch.manual_seed(0)
        torch.save(dict(state_dict=build_model(other).state_dict()),
                   tmp_path / 'envelope.pth')
        JNDMeter(other, str(tmp_path / 'envelope.pth'))


@pytest.mark.parametrize('shape', [(3, 4, 2, 3), (3, 6, 4), (3, 4)])
def test_a_probe_changes_its_part(shape):
    dim = len(shape)
    neck = FeatJNDNeck(
        dict(type='mmfeatjnd.ConvEstimator' if dim == 4 else
             'mmfeatjnd.TokenEstimator', hidden_channels=8),
        in_channels=[4, 4]).eval()
    for estimator in neck.estimators:
        estimator.channels.mean_square.copy_(torch.tensor([1., 4, 9, 16]))
    features = [torch.zeros(shape), torch.zeros(shape)]
    token = 5 if dim > 2 else 0
    probe = Probe([Part(1, token), Part(0, None, (1, 3)), Part()],
                  torch.tensor([2.0, 1.0, 0.5]))
    with torch.no_grad(), neck.run(probe, images=['a', 'a', 'a']):
        first, second = neck.apply_levels(features)
    noise = [gaussian_noise(image_keys(['a']), shape[1:], i)[0]
             for i in range(2)]
    std = over_channels(torch.tensor([1., 2, 3, 4]), features[0])[0]
    whole = [std * n for n in noise]
    assert not first[0].any()
    only = torch.zeros(shape[1:])
    if dim == 4:
        only[:, 1, 2] = 1
    elif dim == 3:
        only[5] = 1
    else:
        only[:] = 1
    torch.testing.assert_close(second[0], 2 * only * whole[1])
    channels = over_channels(torch.tensor([0., 1, 1, 0]), features[0])[0]
    torch.testing.assert_close(first[1], channels * whole[0])
    assert not second[1].any()
    torch.testing.assert_close(first[2], 0.5 * whole[0])
    torch.testing.assert_close(second[2], 0.5 * whole[1])
