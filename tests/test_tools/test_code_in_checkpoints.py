"""No tool runs code that a checkpoint holds."""
import pytest
import torch
from mmengine.config import Config

from mmfeatjnd.apis import (
    FeatureCodec,
    build_model,
    build_runner,
    make_plan,
    read_checkpoint,
)
from mmfeatjnd.models import neck_at
from mmfeatjnd.models.codec_plan import save_plan
from mmfeatjnd.models.dmv_jnd.weights import load_weights
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.utils import UnsafeCheckpoint


class Code:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.fixture
def given(small, tmp_path):
    """Config, weights with code, and the file that the code makes."""
    config, checkpoint = small
    mark, bad = tmp_path / 'mark', tmp_path / 'bad.pth'
    content = torch.load(checkpoint, weights_only=True)
    torch.save(dict(state_dict=content.get('state_dict', content),
                    code=Code(mark)), bad)
    yield config, bad
    assert not mark.exists()


CURVE = ('{config}', '{bad}', '--seeds', '1', '--out', '{out}')
TOOLS = {
    'train': ('train.py', '{config}', '--cfg-options', 'load_from={bad}',
              '--work-dir', '{out}'),
    'featjnd': ('train.py', '{config}', '--featjnd', '--cfg-options',
                'load_from={bad}', '--work-dir', '{out}'),
    'resume': ('train.py', '{config}', '--resume', '{bad}', '--work-dir',
               '{out}'),
    'test': ('test.py', '{config}', '{bad}', '--work-dir', '{out}'),
    'jnd_curve': ('analysis_tools/jnd_curve.py', *CURVE, '--distortions',
                  'gaussian', '--nrmse', '1'),
    'rate_curve': ('analysis_tools/rate_curve.py', *CURVE, '--policies',
                   'one-step'),
    'measure_jnd': ('analysis_tools/measure_jnd.py', '{config}', '{bad}',
                    '--out', '{out}'),
    'split_guide': ('analysis_tools/split_guide.py', '{config}', '{bad}',
                    '--splits', 'backbone'),
    'metric': ('estimate_metric.py', '{config}', '{bad}', '--out',
               '{out}/a.safetensors'),
    'plan': ('make_plan.py', '{config}', '{bad}', '--out',
             '{out}/a.safetensors'),
    'extract': ('model_converters/extract_estimator.py', '{config}', '{bad}',
                '{out}/a.safetensors'),
    'publish': ('model_converters/publish_model.py', '{bad}', '{out}/a.pth'),
}


@pytest.mark.parametrize('tool', TOOLS)
def test_tools(given, run_tool, tmp_path, tool):
    config, bad = given
    known = dict(config=config, bad=bad, out=tmp_path / 'out')
    with pytest.raises(SystemExit, match='running code that it holds'):
        run_tool(*(part.format(**known) for part in TOOLS[tool]))


def test_both_sides_of_the_codec(given, small, run_tool, tmp_path):
    config, bad = given
    cfg = Config.fromfile(config)
    plan = make_plan(cfg, str(small[1]), images=4)
    with pytest.raises(CheckpointError, match='running code'):
        FeatureCodec(cfg, str(bad), plan, step=1.0, device='cpu')
    save_plan(plan, tmp_path / 'plan.safetensors')
    picture = config.parent / 'images/a/0.png'
    good = FeatureCodec(cfg, str(small[1]), plan, step=1.0, device='cpu')
    (tmp_path / 'a.fjnd').write_bytes(good.encode(picture))
    for command, *rest in (('encode', picture, tmp_path / 'out'),
                           ('decode', tmp_path / 'a.fjnd', '--out',
                            tmp_path / 'x.pkl')):
        with pytest.raises(SystemExit, match='running code that it holds'):
            run_tool('feature_codec.py', command, config, bad,
                     tmp_path / 'plan.safetensors', *rest)
    with pytest.raises(SystemExit, match='running code that it holds'):
        run_tool('model_converters/split_host.py', config, bad,
                 tmp_path / 'plan.safetensors', tmp_path / 's.safetensors',
                 tmp_path / 'r.safetensors')


def test_python(given, tmp_path):
    config, bad = given
    cfg = Config.fromfile(config)
    with pytest.raises(CheckpointError, match='running code'):
        read_checkpoint(str(bad))
    model = build_model(cfg)
    # tasks of DMV-JND, and its preprocessor
    with pytest.raises(CheckpointError, match='running code'):
        load_weights(model, bad, 'task', 'Name another.')
    with pytest.raises(CheckpointError, match='no estimator file'):
        neck_at(model, estimator=bad)
    for resume in (False, True):
        cfg.update(load_from=str(bad), resume=resume,
                   work_dir=str(tmp_path / 'work'))
        with pytest.raises(UnsafeCheckpoint, match='running code'):
            build_runner(cfg, training=True).train()
