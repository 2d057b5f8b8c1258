"""A stock config, its checkpoint and a flag: no config of one's own."""
import json

import pytest
import torch
from mmengine.config import Config

SPLIT = 'split=backbone.layer1'


@pytest.mark.slow
def test_from_a_stock_config_to_a_curve(small, run_tool, tmp_path,
                                        monkeypatch):
    config, checkpoint = small
    monkeypatch.chdir(tmp_path)
    run_tool('train.py', config, '--featjnd', SPLIT, '--no-validate',
             '--cfg-options', f'load_from={checkpoint}',
             'train_cfg.max_iters=3', 'param_scheduler=None',
             'model.neck.estimator.hidden_channels=4',
             "visualizer=dict(type='Visualizer',vis_backends=[dict("
             "type='TensorboardVisBackend')])")
    # beside the host's own work dir
    work_dir = tmp_path / 'work_dirs' / f'featjnd_{config.stem}'
    trained = work_dir / 'iter_3.pth'
    assert list(work_dir.glob('*/vis_data/events.out.tfevents.*'))
    weights = torch.load(trained, weights_only=False)['state_dict']
    host = torch.load(checkpoint, weights_only=False)
    host = host.get('state_dict', host)
    assert all(torch.equal(weights[k.replace('neck.', 'neck.neck.')], v)
               for k, v in host.items())
    assert any(k.startswith('neck.estimators.0.') for k in weights)
    # the config that was run is one as any other, and so is the flag
    written = work_dir / config.name
    assert Config.fromfile(written).model.neck.in_channels == [8]
    options = ['--cfg-options', 'model.neck.estimator.hidden_channels=4']
    for name, given in (('flag', [config, trained, '--featjnd', SPLIT,
                                  *options]),
                        ('file', [written, trained])):
        run_tool('analysis_tools/jnd_curve.py', *given, '--distortions',
                 'featjnd', '--nrmse', 1, '--seeds', 1, '--out',
                 tmp_path / name)
    flag, file = (json.loads((tmp_path / name / 'curve.json').read_text())
                  for name in ('flag', 'file'))
    assert flag == file and len(flag) == 2
    run_tool('test.py', config, trained, '--featjnd', SPLIT, '--hook',
             "dict(type='mmfeatjnd.PerturbationHook',nrmse=0.5)", *options)


def test_weights_of_the_host_must_be_named(small, run_tool, tmp_path,
                                           monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='load_from=CHECKPOINT'):
        run_tool('train.py', small[0], '--featjnd')
    assert not list(tmp_path.iterdir())


def test_the_config_can_be_looked_at(small, run_tool, tmp_path):
    run_tool('misc/print_config.py', small[0], '--featjnd', SPLIT,
             '--save-path', tmp_path / 'whole.py')
    cfg = Config.fromfile(tmp_path / 'whole.py')
    assert cfg.model.host == 'mmpretrain.ImageClassifier'
    assert cfg.model.neck.split == 'backbone.layer1'
