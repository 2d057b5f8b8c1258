"""tools/analysis_tools/measure_jnd.py, on images and a host made small."""
import copy
import json
import os

import pytest
import torch

from mmfeatjnd.apis import build_model


@pytest.fixture(scope='module')
def host(small_classifier, tmp_path_factory):
    """Config file and checkpoint, of random weights."""
    cfg, _ = small_classifier
    cfg, root = copy.deepcopy(cfg), tmp_path_factory.mktemp('host')
    cfg.model.neck.estimator.mode = 'sensitivity'
    cfg.dump(root / 'config.py')
    torch.manual_seed(0)
    model = build_model(cfg)
    model.neck.estimators[0].initial.fill_(1)
    torch.save(dict(state_dict=model.state_dict()), root / 'model.pth')
    return root / 'config.py', root / 'model.pth'


def test_measure_jnd(run_tool, host, tmp_path, capfd):
    argv = ['analysis_tools/measure_jnd.py', *host, '--images', 2, '--tokens',
            2, '--groups', 1, '--image-nats', 0.01, '--draws', 2,
            '--predictors', 'fisher', 'static', '--out', tmp_path / 'out',
            '--work-dir', tmp_path / 'work']
    run_tool(*argv)
    assert sorted(os.listdir(tmp_path / 'out')) == [
        'measured_jnd.json', 'measured_jnd.md', 'measured_jnd.png',
        'thresholds.jsonl']
    rows = json.loads((tmp_path / 'out/measured_jnd.json').read_text())
    assert {(r['unit'], r['predictor']): r['count'] for r in rows
            if r['unit'] != 'all images'} == {
        ('token', 'fisher'): 4, ('token', 'static'): 4,
        ('channel-group', 'fisher'): 2,
        ('image', 'fisher'): 2, ('image', 'static'): 2}
    assert all(r['seed'] == 0 for r in rows)
    table = (tmp_path / 'out/measured_jnd.md').read_text()
    assert '| token | 0.01 | `fisher` | 4 |' in table
    assert table in capfd.readouterr().out
    # nothing is measured again
    before = (tmp_path / 'out/thresholds.jsonl').read_text()
    run_tool(*argv)
    assert (tmp_path / 'out/thresholds.jsonl').read_text() == before
    with pytest.raises(SystemExit, match=r'other settings \(seed\)'):
        run_tool(*argv, '--seed', 1)


def test_no_such_predictor(run_tool, host, tmp_path, capfd):
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/measure_jnd.py', *host, '--predictors',
                 'gaussian', '--out', tmp_path / 'out')
    assert "invalid choice: 'gaussian'" in capfd.readouterr().err
