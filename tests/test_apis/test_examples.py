"""The examples in the docstrings of what a user calls from Python."""
import copy
import doctest
import importlib
import inspect
import pkgutil

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

import mmfeatjnd.apis
from mmfeatjnd.apis import build_model, read_weights, train_once
from mmfeatjnd.models import estimator_file
from mmfeatjnd.models.hosts import OWN_KEYS, host_key

MODULES = [
    importlib.import_module(f'mmfeatjnd.apis.{module.name}')
    for module in pkgutil.iter_modules(mmfeatjnd.apis.__path__)
] + [estimator_file]
EXAMPLES = [
    example for module in MODULES
    for example in doctest.DocTestFinder(recurse=True).find(module)
    if example.examples
]

def runs_apart():
    """MMEngine names what a run logs to by config and second."""
    for kept in (MessageHub, MMLogger, Visualizer):
        kept._instance_dict.clear()


@pytest.fixture(scope='module')
def host(small_classifier, tmp_path_factory):
    """A config that trains one iteration, the checkpoint of that, an image.
    """
    cfg, root = small_classifier
    cfg = copy.deepcopy(cfg)
    full = Config.fromfile(cfg.filename)
    for name in ('train_dataloader', 'optim_wrapper'):
        cfg[name] = full[name]
    cfg.train_dataloader.update(
        batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(root / 'images')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.load_from = None
    cfg.log_level = 'ERROR'  # an example shows what it says, not the log
    cfg.work_dir = str(tmp_path_factory.mktemp('trained'))
    runs_apart()
    return cfg, train_once(cfg), str(root / 'images/a/0.png')


def plain_config(cfg):
    """A FeatJND config, without FeatJND."""
    cfg = copy.deepcopy(cfg)
    cfg.model.type = cfg.model.pop('host')
    cfg.model.neck = cfg.model.neck.neck
    for name in ('training', 'discrepancy', 'objective'):
        cfg.model.pop(name, None)
    return cfg


def plain_host(cfg, model):
    """Its host."""
    host = build_model(plain_config(cfg))
    host.load_state_dict({
        host_key(k): v for k, v in model.state_dict().items()
        if not k.startswith(OWN_KEYS)
    })
    return host


@pytest.mark.parametrize('example', EXAMPLES, ids=lambda e: e.name)
def test_example(example, host, trained_jnd, tmp_path, monkeypatch):
    cfg, checkpoint, image = host
    monkeypatch.chdir(tmp_path)
    runs_apart()
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(tmp_path / 'run')
    model = build_model(cfg)
    model.load_state_dict(read_weights(checkpoint))
    jnd_cfg = copy.deepcopy(trained_jnd[0])
    jnd_cfg.log_level = 'ERROR'
    example = copy.copy(example)
    example.globs = dict(
        example.globs,
        cfg=cfg,
        checkpoint=checkpoint,
        model=model,
        stock_cfg=plain_config(cfg),
        plain_model=plain_host(cfg, model),
        image=image,
        jnd_cfg=jnd_cfg,
        jnd_checkpoint=trained_jnd[1])
    report = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
        example, out=report.append)
    assert not report, ''.join(report)


def test_what_has_an_example():
    names = {e.name.rsplit('.', 1)[-1] for e in EXAMPLES}
    for name in mmfeatjnd.apis.__all__:
        public = getattr(mmfeatjnd.apis, name)
        is_error = inspect.isclass(public) and issubclass(public, Exception)
        if callable(public) and not is_error:
            assert name in names, name
