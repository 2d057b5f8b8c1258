"""Arguments of the command-line tools, and what they do to a config.

MMDetection, MMPretrain and MMSegmentation give their ``tools/train.py`` and
``tools/test.py`` the same flags, but what a flag does to the config differs.
The functions here edit a :class:`mmengine.config.Config` the way the host
named by its ``default_scope`` would.
"""
import argparse
import logging
import os
import os.path as osp
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.runner import find_latest_checkpoint

from mmfeatjnd import compat
from .cfg_options import CfgOptions
from .console import UsageError, log

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
DUMP_SUFFIXES = ('.pkl', '.pickle')
METRIC_SUFFIXES = ('.json', '.yaml', '.yml') + DUMP_SUFFIXES


def _parser(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--work-dir',
        help='folder of logs, metrics and checkpoints; by default '
        '`work_dir` of the config, else ./work_dirs/<config name>')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started')
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='turn off pin_memory in the dataloaders')
    # both spellings are in use: torch changed its own in 2.0
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def _parse(parser, argv):
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def parse_train_args(argv=None):
    """Parse the arguments of ``tools/train.py``.

    Args:
        argv (list[str], optional): Arguments, without the program's name.
            Defaults to None: those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = _parser('Train a model of any of the three host libraries')
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the actual over the base batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the latest '
        'one in the work dir, if there is one')
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not validate during training')
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='turn off persistent_workers in the dataloaders')
    return _parse(parser, argv)


def parse_test_args(argv=None):
    """Parse the arguments of ``tools/test.py``.

    Args:
        argv (list[str], optional): Arguments, without the program's name.
            Defaults to None: those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = _parser('Test a model of any of the three host libraries')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument(
        '--out',
        help='MMDetection, MMPretrain: pickle file for the predictions; '
        'MMSegmentation: folder for the predicted label maps')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out holds: the predictions (default) or the metrics, '
        'the latter as a .json, .yaml or .pkl file')
    parser.add_argument(
        '--amp', action='store_true', help='test in mixed precision')
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--show-dir',
        help='folder for pictures of the predictions; for MMDetection '
        'inside <work dir>/<timestamp>')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that a window stays open')
    parser.add_argument(
        '--interval', type=int, help='draw every this many samples')
    parser.add_argument(
        '--tta', action='store_true', help='augment at test time')
    args = _parse(parser, argv)
    if args.out_item and not args.out:
        parser.error('--out-item says what --out holds: give --out as well')
    return args


def curve_parser(description):
    """The arguments that the tools for curves share.

    Args:
        description (str): What the tool does.

    Returns:
        argparse.ArgumentParser: For the tool to add its own to.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='FeatJND config file path')
    parser.add_argument(
        'checkpoint',
        help='checkpoint of host and estimator, or of the host with '
        '--estimators')
    parser.add_argument(
        '--estimators',
        nargs='+',
        default=[],
        help='estimator files, one for each seed')
    parser.add_argument('--seeds', type=count, default=3,
                        help='number of seeds')
    parser.add_argument(
        '--metric', help='metric to draw; the first one by default')
    parser.add_argument(
        '--out', required=True, type=Path, help='folder for the results')
    parser.add_argument(
        '--work-dir', help='the dir to save logs; OUT by default')
    add_cfg_options(parser)
    return parser


def add_cfg_options(parser):
    """Add ``--cfg-options``.

    Args:
        parser (argparse.ArgumentParser): Edited in place.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='override fields of the config, as key=value. Lists are written '
        'key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]"; the quotes '
        'are needed and blanks are not allowed')


def count(text):
    """A number of things, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than 1')
    return value


def open_config(args):
    """Check the environment and read the config that a tool was given.

    Args:
        args (argparse.Namespace): With ``config`` and ``cfg_options``.

    Returns:
        Config: The config.

    Raises:
        UsageError: If there is no such file.
    """
    compat.check_environment()
    compat.register_trusted_checkpoint_loader()
    cfg = load_config(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def check_metric(metric, rows, saved):
    """Raise a :class:`UsageError` unless there is such a metric to draw.

    Args:
        metric (str | None): The argument ``--metric``.
        rows (list[dict]): Of a curve.
        saved (Path): Where they are.
    """
    if metric not in (None, *rows[0]['metrics']):
        raise UsageError(f'--metric {metric}: the config measures '
                         f'{", ".join(rows[0]["metrics"])}. The rows are in '
                         f'{saved}')


def load_config(path):
    """Read a config file.

    Args:
        path (str): Path of the file.

    Returns:
        Config: The config.

    Raises:
        UsageError: If there is no such file.
    """
    if not osp.isfile(path):
        raise UsageError(f'the config {path!r} does not exist')
    return Config.fromfile(path)


def merge_train_args(cfg, args):
    """Edit a config as the flags of ``tools/train.py`` ask.

    As in the hosts, ``--cfg-options`` override the other flags in MMPretrain
    and are overridden by them elsewhere. ``--resume`` always comes last: with
    ``load_from`` overridden after it, MMEngine would resume training from the
    host's checkpoint.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): From :func:`parse_train_args`.

    Returns:
        Config: The same config.

    Raises:
        UsageError: If the config cannot do what a flag asks.
    """
    with _options(cfg, args):
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if args.amp:
            enable_amp(cfg)
        if args.auto_scale_lr:
            enable_auto_scale_lr(cfg)
        _set_loaders(cfg, args, LOADERS, persistent_workers=True)
    _drop_idle_persistence(cfg)
    resolve_resume(cfg, args.resume)
    return cfg


def merge_test_args(cfg, args):
    """Edit a config as the flags of ``tools/test.py`` ask.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): From :func:`parse_test_args`.

    Returns:
        Config: The same config.

    Raises:
        UsageError: If the config cannot do what a flag asks.
    """
    with _options(cfg, args):
        if args.amp:
            cfg.test_cfg.fp16 = True
        if args.show or args.show_dir:
            enable_visualization(cfg, args)
        _set_loaders(cfg, args, ['test_dataloader'])
    _drop_idle_persistence(cfg)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.out:
        route_output(cfg, args)
    # after the options, so that `model.backbone...` still names the backbone
    if args.tta:
        enable_tta(cfg)
    return cfg


def scope_of(cfg):
    """Return the default scope of a config: the name of its host."""
    return cfg.get('default_scope') or 'mmengine'


def type_name(cfg):
    """Return the class name in a config, without its scope."""
    kind = cfg.get('type')
    if isinstance(kind, type):
        return kind.__name__
    return kind.rsplit('.', 1)[-1] if kind else kind


@contextmanager
def _options(cfg, args):
    """Merge ``--cfg-options`` where the host does, around the flags."""
    options = args.cfg_options or {}
    late = options.get('default_scope', scope_of(cfg)) == 'mmpretrain'
    if not late:
        cfg.merge_from_dict(options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)
    yield
    if late:
        cfg.merge_from_dict(options)


def _set_loaders(cfg, args, names, **extra):
    for name in names:
        loader = cfg.get(name)
        if not loader:
            continue
        if scope_of(cfg) == 'mmpretrain':
            defaults = dict(
                pin_memory=True,
                collate_fn=dict(type='default_collate'),
                **extra)
            for key, value in defaults.items():
                loader.setdefault(key, value)
        if args.no_pin_memory:
            loader['pin_memory'] = False
        if getattr(args, 'no_persistent_workers', False):
            loader['persistent_workers'] = False


def _drop_idle_persistence(cfg):
    # torch refuses persistent workers where there are no workers, so that
    # `--cfg-options train_dataloader.num_workers=0` alone would fail
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and not loader.get('num_workers'):
            if loader.get('persistent_workers'):
                loader['persistent_workers'] = False


def enable_amp(cfg):
    """Train in mixed precision, on an accelerator or on the CPU.

    MMEngine's wrapper refuses the CPU; there the config gets
    :class:`mmfeatjnd.engine.optim_wrappers.CPUAmpOptimWrapper` instead.

    Args:
        cfg (Config): The config, edited in place.

    Raises:
        UsageError: If the optimizer wrapper is of another type than
            ``OptimWrapper`` or has no mixed-precision form on the device.
    """
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper) or 'OptimWrapper'
    if kind in ('AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        log(f'--amp: the config already uses {kind}', logging.WARNING)
    elif kind != 'OptimWrapper':
        raise UsageError(
            '--amp replaces an optim_wrapper of type OptimWrapper, but this '
            f"config's is of type {kind}: set its precision in the config")
    device = get_device()
    if device == 'cpu':
        wrapper.type = 'mmfeatjnd.CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    elif device in ('cuda', 'npu', 'mlu', 'musa'):
        if kind == 'OptimWrapper':
            wrapper.type = 'AmpOptimWrapper'
            wrapper.setdefault('loss_scale', 'dynamic')
    else:
        raise UsageError(f'--amp is not supported on the device {device!r}')


def enable_auto_scale_lr(cfg):
    """Scale the learning rate by the batch size.

    Args:
        cfg (Config): The config, edited in place.

    Raises:
        UsageError: If it has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UsageError(
            '--auto-scale-lr needs the batch size that the learning rate was '
            'chosen for: add `auto_scale_lr=dict(base_batch_size=...)` to the '
            'config')
    cfg.auto_scale_lr.enable = True


def resolve_resume(cfg, resume=None):
    """Settle what training starts from: a run of its own or ``load_from``.

    MMEngine's automatic resumption forgets ``load_from`` even where there is
    nothing to resume, and the host would start from random weights. Here
    ``load_from`` is kept in that case.

    Args:
        cfg (Config): The config with its ``work_dir``, edited in place.
        resume (str, optional): A checkpoint, or ``'auto'`` for the latest in
            the work dir. Defaults to None: what the config says.
    """
    if resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, resume
        return
    by_config = cfg.get('resume') and not cfg.get('load_from')
    if resume == 'auto' or by_config:
        if find_latest_checkpoint(cfg.work_dir):
            cfg.resume, cfg.load_from = True, None
        else:
            cfg.resume = False
            log(f'nothing to resume in {cfg.work_dir}: starting anew')


def enable_visualization(cfg, args):
    """Turn on the host's visualization hook.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): With ``show``, ``show_dir``, ``wait_time``
            and ``interval``.

    Raises:
        UsageError: If ``default_hooks`` has no ``visualization``.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if not hook:
        raise UsageError(
            '--show and --show-dir need the visualization hook of the host '
            'library: set `default_hooks.visualization` in the config, as in '
            "the host's default_runtime.py")
    scope = scope_of(cfg)
    if scope == 'mmpretrain':
        hook.update(
            enable=True,
            show=args.show,
            wait_time=args.wait_time,
            out_dir=args.show_dir,
            interval=args.interval or 1)
        return
    hook['draw'] = True
    if args.interval:
        hook['interval'] = args.interval
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir:
        if scope == 'mmseg':
            cfg.visualizer['save_dir'] = args.show_dir
        else:
            hook['test_out_dir'] = args.show_dir


def enable_tta(cfg):
    """Wrap the model for test-time augmentation.

    Where the config has no ``tta_model`` or ``tta_pipeline``, MMDetection and
    MMPretrain models get horizontal flips.

    Args:
        cfg (Config): The config, edited in place.

    Raises:
        UsageError: If there is no default for the host.
    """
    scope = scope_of(cfg)
    if scope == 'mmdet':
        nms = dict(type='nms', iou_threshold=0.5)
        model = dict(
            type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    elif scope == 'mmpretrain':
        model = dict(type='mmpretrain.AverageClsScoreTTA')
    else:
        missing = {'tta_model', 'tta_pipeline'} - set(cfg)
        if missing:
            raise UsageError(
                f'--tta has no default for {scope} configs: add '
                f'{" and ".join(sorted(missing))} to the config')

    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'tta_model' not in cfg:
        cfg.tta_model = model
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = _flip_pipeline(dataset.pipeline, scope)
    dataset.pipeline = deepcopy(cfg.tta_pipeline)

    wrapped = ConfigDict(**cfg.tta_model)
    wrapped.module = cfg.model
    # MMEngine gives the wrapper the top-level preprocessor, if there is one,
    # and the wrapper's replaces the model's own
    own, shared = (c.get('data_preprocessor') for c in (cfg.model, cfg))
    if own and shared and own != shared:
        wrapped.data_preprocessor = own
    cfg.model = wrapped


def _flip_pipeline(pipeline, scope):
    *head, pack = deepcopy(list(pipeline))
    if scope == 'mmdet':
        # the boxes are flipped back by these
        keys = tuple(
            pack.get('meta_keys', ('img_id', 'img_path', 'ori_shape',
                                   'img_shape', 'scale_factor')))
        pack['meta_keys'] = keys + tuple(
            k for k in ('flip', 'flip_direction') if k not in keys)
    flips = [dict(type='RandomFlip', prob=p) for p in (1., 0.)]
    return [*head, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def route_output(cfg, args):
    """Check ``--out``, and tell the metrics of MMSegmentation about it.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): With ``out`` and ``out_item``.

    Raises:
        UsageError: If the suffix does not fit what is to be written.
    """
    out = args.out
    if args.out_item == 'metrics':
        check_suffix(out, METRIC_SUFFIXES, 'metrics')
    elif scope_of(cfg) != 'mmseg':
        check_suffix(out, DUMP_SUFFIXES, 'predictions')
    else:
        if osp.isfile(out):
            raise UsageError(f'--out {out}: a folder is needed, not a file')
        metrics = cfg.test_evaluator
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            metric.update(output_dir=out, keep_results=True)


def check_suffix(path, suffixes, what):
    """Raise a :class:`UsageError` unless ``--out`` names such a file.

    Args:
        path (str): The argument ``--out``.
        suffixes (tuple[str]): Allowed ends of its name.
        what (str): What is written.
    """
    if not path.endswith(suffixes):
        raise UsageError(
            f'--out {path}: {what} are written to a file whose name ends with '
            + ', '.join(suffixes))
