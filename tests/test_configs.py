"""Every shipped config loads, builds, and stays true to its host."""
import os.path as osp
import re
from glob import glob
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import get_installed_path
from torch import nn

import mmfeatjnd  # noqa: F401  lets `_base_` reach every host
from mmfeatjnd.compat import require
from mmfeatjnd.engine.hooks import QuantizationHook
from mmfeatjnd.models import DMVJND, FeatJNDMixin, find_neck

ROOT = osp.abspath(osp.join(osp.dirname(__file__), '../configs'))
CONFIGS = sorted(
    osp.relpath(path, ROOT) for path in glob(f'{ROOT}/**/*.py', recursive=True)
    if '_base_' not in osp.relpath(path, ROOT).split(osp.sep))
# config -> the stock config that it extends
STOCK = {
    'detr_r50': 'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'faster-rcnn_r50': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'faster-rcnn_r50_c4':
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
    'mask-rcnn_r50': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mask-rcnn_swin-t': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'pspnet_r50_cityscapes':
    'mmseg::pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    'resnet50_in1k': 'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    'retinanet_r50': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'segformer_mit-b0_ade20k':
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'swin-tiny_in1k': 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    'vit-base-p16_in1k':
    'mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py',
}
# the other configs that have a FeatJND and a quantization version
SMALL = [
    'mask-rcnn_r18_dsb2018', 'mask-rcnn_r50_dsb2018', 'resnet18-w32_cifar10',
    'resnet18_cifar10', 'yolox-nano_coco-small',
    'mobilenet-v2_imagenet-sample'
]


def build(cfg):
    """The model as the Runner builds it, weights uninitialized."""
    require(cfg.default_scope)
    model = cfg.model.copy()
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(model)


# what the names in a folder begin with, so that no two folders share one
PREFIX = dict(featjnd='', quantization='quantization_', dmv_jnd='')


def our_config(name, folder='featjnd'):
    return Config.fromfile(
        osp.join(ROOT, f'{folder}/{PREFIX[folder]}{name}.py'))


def stem(path):
    return osp.splitext(osp.basename(path))[0]


@pytest.fixture
def stock_config(tmp_path):

    def read(name):
        path = tmp_path / 'stock.py'
        path.write_text(f'_base_ = {STOCK[name]!r}\n')
        return Config.fromfile(path)

    return read


@pytest.mark.parametrize('folder', ['featjnd', 'quantization'])
def test_no_config_is_forgotten(folder):
    shipped = {p for p in CONFIGS if p.startswith(folder)}
    assert shipped == {
        osp.join(folder, f'{PREFIX[folder]}{name}.py')
        for name in [*STOCK, *SMALL]
    }


def test_names_are_unique():
    # the default work dir is named after the config; some file systems do
    # not tell upper from lower case
    names = [stem(path).lower() for path in CONFIGS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize('path', CONFIGS)
def test_a_local_checkpoint_is_the_one_that_another_config_leaves(path):
    cfg = Config.fromfile(osp.join(ROOT, path))
    sources = [task.checkpoint for task in cfg.model.get('tasks', [])]
    if cfg.get('load_from'):
        sources.append(cfg.load_from)
    for source in sources:
        if '://' in source or source.startswith('data/hosts/'):
            continue  # weights that somebody else has trained
        top, trained, name = source.split('/')
        assert top == 'work_dirs' and trained != stem(path)
        origin, = (p for p in CONFIGS if stem(p) == trained)
        host = Config.fromfile(osp.join(ROOT, origin))
        assert name == f'epoch_{host.train_cfg.max_epochs}.pth'
        # and this config has the model of that one
        if not cfg.model.get('tasks'):
            assert cfg.model.backbone == host.model.backbone


@pytest.mark.parametrize('path', CONFIGS)
def test_a_killed_run_can_be_resumed(path):
    # MMEngine deletes the oldest checkpoint before the new one is whole
    cfg = Config.fromfile(osp.join(ROOT, path))
    assert cfg.default_hooks.checkpoint.get('max_keep_ckpts', -1) != 1


@pytest.mark.parametrize('path', CONFIGS)
def test_builds(path, stock_config):
    cfg = Config.fromfile(osp.join(ROOT, path))
    assert cfg.train_dataloader and cfg.optim_wrapper and cfg.train_cfg
    model = build(cfg)
    if osp.basename(path).startswith('dmv-jnd'):
        check_dmv_jnd(cfg, model)
    if not path.startswith(('featjnd', 'quantization')):
        return
    assert isinstance(model, FeatJNDMixin)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(n.startswith('neck.estimators.') for n in trained)
    state = find_neck(model).estimators.state_dict()
    assert sum(v.numel() * v.element_size() for v in state.values()) < 5e6
    name = stem(path)
    if name in STOCK and path.startswith('featjnd'):
        check_keys(model, build(stock_config(name)))


def check_keys(model, host):
    """A checkpoint of the plain host lacks nothing: the estimators begin
    anew."""
    weights = host.state_dict()
    before = {
        k: v.clone()
        for k, v in find_neck(model).estimators.state_dict().items()
    }
    result = model.load_state_dict(dict(weights), strict=False)
    assert not result.unexpected_keys and not result.missing_keys
    own = model.state_dict()
    for key, value in weights.items():
        key = key if key in own else key.replace('neck.', 'neck.neck.', 1)
        assert torch.equal(own[key], value), key
    after = find_neck(model).estimators.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def check_dmv_jnd(cfg, model):
    """Only the autoencoder is trained; the tasks are configs of ours."""
    assert isinstance(model, DMVJND)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all(n.startswith('net.') for n in trained)
    for task, built in zip(cfg.model.tasks, model.tasks, strict=True):
        # the checkpoint that the task's own config leaves behind
        name = stem(task.config)
        assert built.name == name
        assert osp.dirname(task.checkpoint) == f'work_dirs/{name}'
        own = Config.fromfile(task.config)
        if hasattr(built, 'input_size'):
            assert built.input_size == image_size(own)


def image_size(cfg):
    """What the test pipeline of a classifier on CIFAR-10 gives it."""
    sizes = [32] + [
        step.scale for step in cfg.test_dataloader.dataset.pipeline
        if step.type == 'Resize'
    ]
    return (sizes[-1], sizes[-1])


def test_dmv_jnd_has_the_settings_of_the_paper():
    cfg = our_config('dmv-jnd_4xclassifiers_cifar10', 'dmv_jnd')
    assert cfg.optim_wrapper.optimizer == dict(
        type='Adam', lr=1e-5, weight_decay=1e-3)
    assert cfg.train_cfg.by_epoch and cfg.train_cfg.max_epochs == 200
    assert not cfg.get('param_scheduler')
    loader = cfg.train_dataloader
    assert loader.batch_size == 50
    flip, = (t for t in loader.dataset.pipeline if t.type == 'RandomFlip')
    assert flip.prob == 0.5 and flip.direction == 'horizontal'
    assert len(loader.dataset.pipeline) == 3  # and loading and packing
    # the only normalization: the tasks get pixels
    assert cfg.data_preprocessor == dict(type='BaseDataPreprocessor')
    assert cfg.model.mean == cfg.model.std == 0.5 * 255
    objective = cfg.model.objective
    assert objective.alpha == objective.beta == 1
    assert objective.distribution == 'centred'  # ours, as its head says
    assert 'target_scale' not in objective and 'test_cfg' not in cfg.model
    kinds = [
        Config.fromfile(task.config).model.backbone.type
        for task in cfg.model.tasks
    ]
    assert kinds == ['AlexNet', 'VGG', 'ResNet_CIFAR', 'DenseNet']


def is_subset(part, whole):
    if isinstance(part, dict):
        return all(is_subset(v, whole.get(k)) for k, v in part.items()
                   if k != '_scope_')
    return part == whole


@pytest.mark.parametrize('name', STOCK)
def test_changes_only_what_it_must(name, stock_config):
    cfg, stock = our_config(name), stock_config(name)
    allowed = {
        'model', 'load_from', 'optim_wrapper', 'param_scheduler', 'train_cfg',
        'default_hooks', 'log_processor'
    }
    if name == 'vit-base-p16_in1k':
        allowed.add('custom_hooks')
    changed = {k for k in cfg if k not in stock or cfg[k] != stock[k]}
    assert changed <= allowed
    assert set(stock) <= set(cfg)
    assert cfg.default_hooks.keys() == stock.default_hooks.keys()
    for key, value in stock.model.items():
        if key == 'type':
            assert cfg.model.host.endswith(f'.{value}')
        elif key == 'neck':
            assert cfg.model.neck.get('neck') == value or value is None
        elif key == 'train_cfg' and cfg.default_scope == 'mmpretrain':
            assert cfg.model.train_cfg is None  # no Mixup, no CutMix
        else:
            assert cfg.model[key] == value
    # the schedule is the shared one
    base = schedule('featjnd_1k')
    for key in ('optim_wrapper', 'train_cfg'):
        expected = dict(base[key])
        assert expected.pop('_delete_')
        assert cfg[key] == expected
    assert cfg.param_scheduler == base.param_scheduler
    assert is_subset(base.default_hooks, cfg.default_hooks)
    # and what is trained is the default
    assert not {'training', 'discrepancy', 'objective'} & set(cfg.model)


def schedule(name):
    path = osp.join(ROOT, f'_base_/schedules/{name}.py')
    return Config.fromfile(path).featjnd_schedule


@pytest.mark.parametrize('name', SMALL)
def test_the_small_hosts_share_a_schedule(name):
    cfg, base = our_config(name), schedule('featjnd_short')
    expected = dict(base.optim_wrapper)
    assert expected.pop('_delete_') and cfg.optim_wrapper == expected
    assert cfg.param_scheduler == base.param_scheduler
    assert is_subset(base.default_hooks, cfg.default_hooks)


class Toy(BaseModel):

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, inputs, mode):
        if mode == 'loss':
            return dict(loss=(self.weight - 1).square().sum())
        return inputs


class Watch(Hook):

    def __init__(self):
        self.rates, self.validated = [], []

    def before_train_iter(self, runner, *args, **kwargs):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    def before_val(self, runner):
        self.validated.append(runner.iter)


@pytest.mark.parametrize('name, warmup, iters', [
    ('featjnd_1k', 100, None), ('featjnd_1k', 100, 120),
    ('featjnd_short', 0, None), ('featjnd_short', 0, 5)])
def test_one_number_sets_a_schedule(name, warmup, iters, tmp_path):
    shared = schedule(name)
    fields = {k: dict(shared[k]) for k in ('optim_wrapper', 'train_cfg')}
    for field in fields.values():
        assert field.pop('_delete_')
    if iters:
        fields['train_cfg']['max_iters'] = iters
    iters = fields['train_cfg']['max_iters']
    data = dict(dataset=[torch.zeros(1)], batch_size=1)
    runner = Runner(
        Toy(),
        str(tmp_path),
        train_dataloader=dict(sampler=dict(type='InfiniteSampler'), **data),
        val_dataloader=dict(sampler=dict(type='DefaultSampler'), **data),
        val_cfg=dict(),
        val_evaluator=[],
        param_scheduler=shared.param_scheduler,
        default_hooks=dict(
            logger=None,
            checkpoint=dict(
                type='CheckpointHook', **shared.default_hooks.checkpoint)),
        log_level='ERROR',
        experiment_name=tmp_path.name,
        **fields)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    # the whole cosine, whatever its length
    high, low = fields['optim_wrapper']['optimizer']['lr'], 1e-5
    step = np.arange(iters - warmup) / (iters - warmup)
    expected = low + (high - low) * (1 + np.cos(np.pi * step)) / 2
    np.testing.assert_allclose(watch.rates[warmup:], expected, rtol=1e-6)
    assert watch.rates[0] == pytest.approx(high / 100 if warmup else high)
    assert watch.validated == [iters]
    assert (tmp_path / f'iter_{iters}.pth').is_file()


@pytest.mark.parametrize('name', [*STOCK, *SMALL])
def test_quantization_changes_only_what_it_must(name):
    cfg, former = our_config(name, 'quantization'), our_config(name)
    shared = Config.fromfile(
        osp.join(ROOT, '_base_/quantization.py')).quantization
    # it is trained in the same way, so one checkpoint serves both
    changed = {k for k in cfg if k not in former or cfg[k] != former[k]}
    assert changed == {'custom_hooks'}
    assert set(former) <= set(cfg)
    assert 'training' not in cfg.model and 'objective' not in cfg.model
    assert cfg.model.neck.estimator.get('mode') is None
    # the hooks that were there stay, and ours comes last
    *kept, hook = cfg.custom_hooks
    assert kept == former.get('custom_hooks', [])
    assert hook == dict(shared.custom_hooks[0], coded=name in SMALL)
    operation = HOOKS.build(hook).operation
    assert (operation.policy_name, operation.scale) == ('featjnd', 1.0)
    # of the envelope mode it uses the estimator as the surrogate trains it
    surrogate = MODELS.build(dict(type='mmfeatjnd.QuantizationSurrogate'))
    for name in ('granularity', 'jnd_rounding'):
        assert getattr(operation.policy, name) == getattr(surrogate, name)


def test_the_hook_can_be_set_from_the_command_line():
    cfg = our_config('mask-rcnn_r50', 'quantization')
    cfg.merge_from_dict({'custom_hooks.0.coded': True})
    hook = HOOKS.build(cfg.custom_hooks[0])
    assert isinstance(hook, QuantizationHook) and hook.operation.coded


@pytest.mark.parametrize('name', STOCK)
def test_checkpoint_is_the_hosts_own(name):
    library, _, stock = STOCK[name].partition('::')
    package = get_installed_path(library)
    folder = osp.join(package, '.mim/configs', osp.dirname(stock))
    metafile, = glob(osp.join(folder, 'metafile.y*ml'))
    # the metafiles of the two lines differ in the server, not in the path
    paths = {
        urlparse(model['Weights']).path
        for model in load(metafile)['Models']
        if model['Config'].endswith(stock) and 'Weights' in model
    }
    source = urlparse(our_config(name).load_from)
    assert source.scheme == 'https' and source.path in paths


@pytest.mark.parametrize('folder', ['featjnd', 'quantization'])
def test_metafile_lists_every_config(folder):
    models = load(osp.join(ROOT, folder, 'metafile.yml'))['Models']
    listed = {stem(model['Config']) for model in models}
    assert {PREFIX[folder] + name for name in STOCK} <= listed
    for model in models:
        path = osp.join(osp.dirname(ROOT), model['Config'])
        assert osp.isfile(path), path
        assert osp.basename(osp.dirname(path)) == folder
        split = Config.fromfile(path).model.neck.get('split', 'backbone')
        assert model['Metadata']['Split'] == split
        host = model['Metadata']['Host']
        if host.startswith('configs/'):
            assert osp.isfile(osp.join(osp.dirname(ROOT), host)), host
    readme = open(osp.join(ROOT, folder, 'README.md')).read()
    assert all(f'({PREFIX[folder]}{name}.py)' in readme
               for name in [*STOCK, *SMALL])


def test_metafile_lists_every_dmv_jnd():
    folder = osp.join(ROOT, 'dmv_jnd')
    shipped = {
        stem(path)
        for path in glob(osp.join(folder, 'dmv-jnd_*.py'))
    }
    models = load(osp.join(folder, 'metafile.yml'))['Models']
    assert {model['Name'] for model in models} == shipped
    readme = open(osp.join(folder, 'README.md')).read()
    for model in models:
        assert model['Config'] == f'configs/dmv_jnd/{model["Name"]}.py'
        assert f'`{model["Name"]}.py`' in readme
        cfg, data = our_config(model['Name'], 'dmv_jnd'), model['Metadata']
        assert data['Batch Size'] == cfg.train_dataloader.batch_size
        assert data.get('Epochs') == cfg.train_cfg.get('max_epochs')
        assert data.get('Iterations') == cfg.train_cfg.get('max_iters')


def recipe(path, index, tmp_path, **names):
    """A config of a document, with what it inherits."""
    text = open(osp.join(osp.dirname(ROOT), path)).read()
    code = re.findall(r'```python\n(_base_ = .*?)```', text, re.DOTALL)[index]
    # below site-packages where the package is installed
    code = code.replace('mmfeatjnd::', f'{ROOT}/')
    for name, file in names.items():
        code = code.replace(f'path/to/{name}.py', file)
    file = tmp_path / f'recipe{len(list(tmp_path.iterdir()))}.py'
    file.write_text(code)
    return Config.fromfile(file)


def test_the_recipe_of_the_readme_is_a_whole_config(tmp_path):
    cfg, shipped = recipe('README.md', 0, tmp_path), our_config(
        'mask-rcnn_r50')
    assert cfg.model.neck.pop('split') == 'backbone'
    cfg.load_from = shipped.load_from
    assert cfg.to_dict() == shipped.to_dict()


def test_the_recipes_for_hosts_of_ones_own(tmp_path):
    host = tmp_path / 'host.py'
    host.write_text("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'"
                    "\ncustom_hooks = [dict(type='EMAHook')]\n")
    cfg = recipe('configs/featjnd/README.md', 0, tmp_path,
                 your_config=str(host))
    shipped = our_config('mask-rcnn_r50')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg',
                'default_hooks', 'log_processor'):
        assert cfg[key] == shipped[key]
    assert build(cfg).featjnd_neck
    cfg = recipe('configs/quantization/README.md', 0, tmp_path,
                 your_featjnd_config=osp.join(
                     ROOT, 'featjnd/mask-rcnn_r50.py'))
    expected = our_config('mask-rcnn_r50', 'quantization')
    assert cfg.to_dict() == expected.to_dict()


@pytest.mark.parametrize('path', [
    'README.md', *(f'docs/{name}.md'
                   for name in ('featjnd', 'quantization', 'dmv_jnd')),
    *(f'configs/{name}/README.md' for name in PREFIX)
])
def test_the_docs_name_configs_that_exist(path):
    root = osp.dirname(ROOT)
    text = open(osp.join(root, path)).read()
    for name in re.findall(r'configs/[\w./-]+\.py', text):
        if '...' not in name:
            assert osp.isfile(osp.join(root, name)), name
    for name in re.findall(r'work_dirs/([\w.-]+)/', text):
        assert name in {stem(p) for p in CONFIGS} | {'demo'}, name


def test_the_model_index_finds_every_metafile():
    index = load(osp.join(osp.dirname(ROOT), 'model-index.yml'))
    found = glob(f'{ROOT}/*/metafile.yml')
    assert sorted(index['Import']) == sorted(
        osp.relpath(path, osp.dirname(ROOT)).replace(osp.sep, '/')
        for path in found)
    names = [m['Name'] for path in found for m in load(path)['Models']]
    assert len(set(names)) == len(names)
