"""No tool goes on with a host whose weights are not there."""
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import build_model

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    'train': ('train.py', '{config}', '--work-dir', '{out}', '--cfg-options',
              'load_from={checkpoint}'),
    'test': ('test.py', '{config}', '{checkpoint}', '--work-dir', '{out}'),
    'jnd_curve': ('analysis_tools/jnd_curve.py', '{config}', '{checkpoint}',
                  '--distortions', 'gaussian', '--nrmse', '1', '--seeds', '1',
                  '--out', '{out}'),
    'rate_curve': ('analysis_tools/rate_curve.py', '{config}', '{checkpoint}',
                   '--policies', 'one-step', '--mean-bits',
                   '--noise-budgets', '1', '--no-coded', '--out', '{out}'),
    'extract': ('model_converters/extract_estimator.py', '{config}',
                '{checkpoint}', '{out}/jnd.safetensors'),
}


@pytest.fixture(scope='module')
def host(small_classifier):
    """A config that can be trained and tested, and whole weights."""
    cfg, root = small_classifier
    cfg = cfg.copy()
    full = Config.fromfile(cfg.filename)
    for name in ('train_dataloader', 'optim_wrapper'):
        cfg[name] = full[name]
    cfg.train_dataloader.update(
        batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(root / 'images')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.load_from = None
    cfg.dump(root / 'host.py')
    torch.manual_seed(0)
    model = build_model(cfg)
    for estimator in model.neck.estimators:
        estimator.channels.updates.fill_(1)
        estimator.initial.fill_(1)  # the parameters are others since
    return root, model.state_dict()


@pytest.fixture
def run(run_tool, host, tmp_path):
    """Run a tool on a checkpoint with this content."""
    root, _ = host

    def run(name, content):
        path = tmp_path / 'given.pth'
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        known = dict(
            config=root / 'host.py', checkpoint=path, out=tmp_path / 'out')
        run_tool(*(part.format(**known) for part in TOOLS[name]))
        return tmp_path / 'out'

    return run


def without(state, prefix):
    return {k: v for k, v in state.items() if not k.startswith(prefix)}


BAD = {
    'gone': (lambda state: None, 'there is no such file'),
    'empty': (lambda state: {}, 'no weights in it'),
    'list': (lambda state: [1], 'no weights in it, but a list'),
    'text': (lambda state: b'text', 'given.pth'),
    'cut': (lambda state: b'PK\x03\x04' + bytes(1000), 'given.pth'),
    'strings': (lambda state: dict.fromkeys(state, 'x'), 'no weights in it'),
    'no layer1': (lambda state: dict(state_dict=without(
        state, 'backbone.layer1')), 'backbone.layer1'),
    'another host': (lambda state: dict(state_dict={
        k: torch.cat([v, v]) if k.endswith('conv1.weight') else v
        for k, v in state.items()
    }), 'backbone.conv1.weight'),
}


@pytest.mark.parametrize('tool', TOOLS)
@pytest.mark.parametrize('bad', BAD)
def test_refused_before_anything_runs(run, host, tmp_path, tool, bad):
    make, reason = BAD[bad]
    with pytest.raises(SystemExit, match=f'error: (.|\n)*{reason}'):
        run(tool, make(dict(host[1])))
    out = tmp_path / 'out'
    for kind in ('*.pth', '*.safetensors', '*.json', 'curve.*', 'rates.*'):
        assert not list(out.glob(f'**/{kind}'))


def test_what_is_right_is_taken(run, host):
    state = dict(host[1])
    out = run('extract', dict(state_dict=state))
    assert os.listdir(out) == ['jnd.safetensors']
    plain = without(state, ('neck.estimators.', 'featjnd_'))
    out = run('jnd_curve', plain)  # the estimator begins anew
    rows = json.loads((out / 'curve.json').read_text())
    assert [row['distortion'] for row in rows] == ['clean', 'gaussian']


def test_no_estimator_to_extract(run, host):
    plain = without(dict(host[1]), ('neck.estimators.', 'featjnd_'))
    for content in (plain, dict(state_dict=plain)):
        with pytest.raises(SystemExit, match='there is no estimator in'):
            run('extract', content)


def test_an_estimator_of_another_config(run, host):
    state = {
        k: v[:4] if k.startswith('neck.estimators.') and v.dim() else v
        for k, v in host[1].items()
    }
    with pytest.raises(SystemExit, match='given.pth: .*another host, split'):
        run('extract', state)
    for tool in ('train', 'test', 'jnd_curve', 'rate_curve'):
        with pytest.raises(SystemExit, match='error: .*another host, split'):
            run(tool, state)


def test_an_estimator_file_that_does_not_fit(run_tool, host, tmp_path):
    root, state = host
    torch.save(state, tmp_path / 'given.pth')
    (tmp_path / 'text.pth').write_text('text')
    for name, reason in (('text.pth', 'is no estimator file'),
                         ('given.pth', 'is no estimator file: .* Make one')):
        with pytest.raises(SystemExit, match=f'error: .*{name} {reason}'):
            run_tool('analysis_tools/jnd_curve.py', root / 'host.py',
                     tmp_path / 'given.pth', '--seeds', 1, '--estimators',
                     tmp_path / name, '--out', tmp_path / 'out')
        hook = "dict(type='mmfeatjnd.PerturbationHook',nrmse=1," \
            f"estimator='{tmp_path / name}')"
        with pytest.raises(SystemExit, match=f'error: .*{name} {reason}'):
            run_tool('test.py', root / 'host.py', tmp_path / 'given.pth',
                     '--work-dir', tmp_path / 'test', '--hook', hook)


def test_an_estimator_that_was_never_trained(run, host):
    state = dict(host[1])
    for key in state:
        if key.endswith(('updates', 'initial')):
            state[key] = torch.zeros_like(state[key])
    with pytest.raises(SystemExit, match='given.pth: .*never trained'):
        run('extract', state)


def test_a_curve_is_told_what_is_missing_before_it_runs(run_tool, host,
                                                       tmp_path):
    root, state = host
    torch.save(state, tmp_path / 'given.pth')
    given = (root / 'host.py', tmp_path / 'given.pth')
    (tmp_path / 'file').touch()
    for flags, reason in [
        (('--out', tmp_path / 'file/out'), 'cannot write .*file is no folder'),
        (('--out', tmp_path / 'file'), 'it is a file, but a folder'),
        (('--estimators', 'a.pth', '--out', tmp_path / 'out'),
         '1 --estimators for --seeds 3'),
        (('--out', tmp_path / 'out', '--cfg-options', 'test_dataloader=None'),
         'has no test_dataloader'),
    ]:
        with pytest.raises(SystemExit, match=f'error: .*{reason}'):
            run_tool('analysis_tools/jnd_curve.py', *given, *flags)
    assert sorted(os.listdir(tmp_path)) == ['file', 'given.pth']


def test_a_disk_that_is_full(host, tmp_path):
    root, state = host
    torch.save(state, tmp_path / 'given.pth')
    limit = resource.RLIMIT_FSIZE
    done = subprocess.run(
        [
            sys.executable,
            ROOT / 'tools/model_converters/extract_estimator.py',
            root / 'host.py', tmp_path / 'given.pth',
            tmp_path / 'jnd.safetensors'
        ],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        text=True,
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(limit, (100000, 100000)))
    assert done.returncode == 1
    assert f'error: cannot write {tmp_path}/jnd.safetensors: ' in done.stderr
    assert 'Traceback' not in done.stderr
    assert os.listdir(tmp_path) == ['given.pth']


def test_a_host_without_a_neck_of_ours(run_tool, host, tmp_path):
    root, state = host
    plain = Config.fromfile(root / 'host.py')
    plain.model.neck = plain.model.neck.neck
    plain.model.type = plain.model.pop('host')
    plain.model.pop('objective')
    plain.dump(tmp_path / 'plain.py')
    state = {
        k.replace('neck.neck.', 'neck.'): v
        for k, v in state.items()
        if not k.startswith(('neck.estimators.', 'featjnd_'))
    }
    torch.save(state, tmp_path / 'given.pth')
    given = (tmp_path / 'plain.py', tmp_path / 'given.pth')
    for tool, *flags in [
        ('test.py', '--work-dir', tmp_path / 'work', '--hook',
         "dict(type='mmfeatjnd.PerturbationHook',nrmse=1)"),
        ('analysis_tools/jnd_curve.py', '--out', tmp_path / 'curve'),
    ]:
        with pytest.raises(SystemExit, match='error: .* a trained estimator'):
            run_tool(tool, *given, *flags)
