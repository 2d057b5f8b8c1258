"""All tools on the config and the checkpoint of a stock host."""
import json
import pickle

import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import build_model, save_estimator
from mmfeatjnd.models.codec_plan import load_plan
from mmfeatjnd.models.hosts import OWN_KEYS, host_key


@pytest.fixture(scope='module')
def given(small_classifier, tmp_path_factory):
    """A folder with ours.py, plain.py, an estimator file and checkpoints of
    both; and one with images."""
    cfg, root = small_classifier
    folder = tmp_path_factory.mktemp('given')
    cfg = cfg.copy()
    cfg.load_from = None
    # plans are made of training pictures
    cfg.train_dataloader = cfg.test_dataloader
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
    cfg.dump(folder / 'ours.py')
    torch.manual_seed(0)
    model = build_model(cfg)
    for estimator in model.neck.estimators:
        torch.nn.init.normal_(estimator.expand.weight)
        estimator.channels.updates.fill_(1)
        estimator.initial.fill_(1)
    state = model.state_dict()
    torch.save(state, folder / 'ours.pth')
    torch.save({host_key(k): v for k, v in state.items()
                if not k.startswith(OWN_KEYS)}, folder / 'plain.pth')
    save_estimator(model, folder / 'jnd.safetensors')
    plain = Config.fromfile(folder / 'ours.py')
    plain.model.type = plain.model.pop('host')
    plain.model.neck = plain.model.neck.neck
    for name in ('training', 'discrepancy', 'objective'):
        plain.model.pop(name, None)
    plain.dump(folder / 'plain.py')
    return folder, root / 'images', model.neck.split


def read(path):
    return json.loads(path.read_text())


def test_curves(given, run_tool, tmp_path):
    folder, _, split = given
    rows = {}
    for name, where in (('ours', []), ('plain', ['--split', split])):
        run_tool('analysis_tools/jnd_curve.py', folder / f'{name}.py',
                 folder / f'{name}.pth', '--distortions', 'gaussian',
                 '--nrmse', 1, '--seeds', 1, '--out', tmp_path / name, *where)
        run_tool('analysis_tools/rate_curve.py', folder / f'{name}.py',
                 folder / f'{name}.pth', '--policies', 'one-step',
                 '--mean-bits', 1, '--seeds', 1, '--calibration-split',
                 'test', '--out', tmp_path / name, *where)
        rows[name] = [
            read(tmp_path / name / f'{x}.json') for x in ('curve', 'rates')
        ]
    assert rows['ours'] == rows['plain']
    assert len(rows['plain'][0]) == len(rows['plain'][1]) == 2


def test_a_curve_of_estimator_files(given, run_tool, tmp_path):
    """They say where the host is split."""
    folder, *_ = given
    for name in ('ours', 'plain'):
        run_tool('analysis_tools/jnd_curve.py', folder / f'{name}.py',
                 folder / f'{name}.pth', '--distortions', 'featjnd',
                 '--nrmse', 1, '--seeds', 1, '--estimators',
                 folder / 'jnd.safetensors', '--out', tmp_path / name)
    assert read(tmp_path / 'ours/curve.json') == read(
        tmp_path / 'plain/curve.json')


def test_a_hook_with_an_estimator_file(given, run_tool, tmp_path):
    folder, *_ = given
    for name, more in (('ours', ''), ('plain',
                                      f",estimator='{folder}/jnd.safetensors'")):
        run_tool(
            'test.py', folder / f'{name}.py', folder / f'{name}.pth',
            '--work-dir', tmp_path, '--out', tmp_path / f'{name}.json',
            '--out-item', 'metrics', '--hook',
            f"dict(type='mmfeatjnd.PerturbationHook',nrmse=1.0{more})")
    metrics = read(tmp_path / 'plain.json')
    assert metrics == read(tmp_path / 'ours.json')
    assert metrics['jnd/nrmse'] == pytest.approx(1.0, rel=1e-3)


def test_the_codec(given, run_tool, tmp_path):
    """A plan of the one serves the other: it says where the host is split."""
    folder, images, split = given
    for name, where in (('ours', []), ('plain', ['--split', split])):
        known = (folder / f'{name}.py', folder / f'{name}.pth')
        plan = tmp_path / f'{name}.safetensors'
        run_tool('make_plan.py', *known, *where, '--images', 4, '--nats',
                 1e-6, '--out', plan, '--work-dir', tmp_path / 'work')
        args = *known, tmp_path / 'ours.safetensors'
        run_tool('feature_codec.py', 'encode', *args, images,
                 tmp_path / name, '--step', 1e-3, '--device', 'cpu')
        run_tool('feature_codec.py', 'decode', *args, tmp_path / name,
                 '--out', tmp_path / f'{name}.pkl', '--device', 'cpu')
    ours, plain = (load_plan(tmp_path / f'{n}.safetensors')
                   for n in ('ours', 'plain'))
    assert ours.digest == plain.digest
    ours, plain = (
        sorted((tmp_path / name).rglob('*.fjnd')) for name in
        ('ours', 'plain'))
    assert plain and [f.read_bytes() for f in ours] == [
        f.read_bytes() for f in plain]
    ours, plain = (
        pickle.loads((tmp_path / f'{name}.pkl').read_bytes())
        for name in ('ours', 'plain'))
    for a, b in zip(ours, plain, strict=True):
        assert torch.equal(a['pred_score'], b['pred_score'])
