"""Arguments of the command-line tools, and what they do to a config.

MMDetection, MMPretrain and MMSegmentation give their ``tools/train.py`` and
``tools/test.py`` the same flags, but what a flag does to the config differs.
The functions here edit a :class:`mmengine.config.Config` the way the library
of its model would; those of ``tools/test.py`` are in :mod:`.testing`.
"""
import argparse
import logging
import math
import os
import os.path as osp
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from mmfeatjnd import compat
from .cfg_options import CfgOptions
from .checkpoints import read_weights
from .console import UsageError, check_writable, log
from .library import host_of, type_name
from .work_dirs import resolve_resume

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
DUMP_SUFFIXES = ('.pkl', '.pickle')


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
        type=_path,
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


def _path(text):
    if not text:
        raise argparse.ArgumentTypeError('a path is needed, not nothing')
    return text


def positive(text):
    """A positive, finite number."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f'{text} is not positive and finite')
    return value


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
        UsageError: If it cannot be read, or the options do not fit it.
    """
    compat.check_environment()
    compat.register_trusted_checkpoint_loader()
    cfg = load_config(args.config)
    merge_options(cfg, args.cfg_options)
    return cfg


def open_test(args, checkpoints):
    """:func:`open_config`, for a tool that tests checkpoints.

    Args:
        args (argparse.Namespace): See :func:`open_config`.
        checkpoints (Sequence[str]): The files.

    Returns:
        Config: The config.

    Raises:
        UsageError: If the config cannot be tested, or a file holds no
            weights.
    """
    cfg = open_config(args)
    require_parts(cfg, 'model', 'test_dataloader', 'test_evaluator')
    for checkpoint in checkpoints:
        read_weights(checkpoint)
    return cfg


def open_curve(args):
    """Check all arguments of :func:`curve_parser`, and read the config.

    Args:
        args (argparse.Namespace): The arguments.

    Returns:
        Config: The config, with ``work_dir``.

    Raises:
        UsageError: If something stands in the way of the curve.
    """
    cfg = open_test(args, [args.checkpoint])
    if args.estimators and len(args.estimators) != args.seeds:
        raise UsageError(f'{len(args.estimators)} --estimators for --seeds '
                         f'{args.seeds}: give one for each')
    set_out_folder(cfg, args)
    return cfg


def set_out_folder(cfg, args):
    """Set the work dir of a tool whose results go to a folder.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): With ``out`` and ``work_dir``.

    Raises:
        UsageError: If ``out`` cannot be written.
    """
    check_writable(args.out, folder=True)
    cfg.work_dir = args.work_dir or str(args.out)


def short_names(checkpoints):
    """Names to tell checkpoints apart in a table or a figure.

    Args:
        checkpoints (Sequence[str]): The files.

    Returns:
        list[str]: The names without suffix or, where these are not unique,
        with the folder or as they are.

    Raises:
        UsageError: A checkpoint is there twice.
    """
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    for name in (lambda p: p.stem, lambda p: f'{p.parent.name}/{p.stem}', str):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f'a checkpoint is given twice: {", ".join(names)}')


def require_parts(cfg, *names):
    """Raise a :class:`UsageError` unless a config has these fields.

    Args:
        cfg (Config): The config.
        *names (str): Of fields that must be there and not None.
    """
    missing = [name for name in names if cfg.get(name) is None]
    if missing:
        raise UsageError(f'the config {cfg.filename} has no '
                         f'{", ".join(missing)}')


def merge_options(cfg, options):
    """Merge ``--cfg-options`` into a config.

    Args:
        cfg (Config): The config, edited in place.
        options (dict, optional): Dotted keys to values.

    Raises:
        UsageError: If the config has no place for one.
    """
    try:
        # a copy: MMEngine takes the `_delete_` out of what it merges
        cfg.merge_from_dict(deepcopy(options or {}))
    except (AttributeError, IndexError, KeyError, TypeError,
            ValueError) as error:
        raise UsageError(
            f'--cfg-options: {", ".join(options)} cannot be set in the config '
            f'({type(error).__name__}: {error})') from error


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
        UsageError: If there is no such file, or it cannot be read.
    """
    if not osp.isfile(path):
        raise UsageError(f'the config {path!r} does not exist')
    try:
        return Config.fromfile(path)
    except compat.EnvironmentProblem:
        raise
    except Exception as error:  # a config is a program
        raise UsageError(f'cannot read the config {path}\n  '
                         f'{type(error).__name__}: {error}') from error


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
    parts = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    with merged_options(cfg, args, parts):
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if args.amp:
            enable_amp(cfg)
        if args.auto_scale_lr:
            enable_auto_scale_lr(cfg)
        set_loaders(cfg, args, LOADERS, persistent_workers=True)
    drop_idle_persistence(cfg)
    resolve_resume(cfg, args.resume)
    return cfg


@contextmanager
def merged_options(cfg, args, parts):
    """Merge ``--cfg-options`` where the host does, around the flags.

    Args:
        cfg (Config): The config, edited in place: before the inside of the
            context, in MMPretrain after it.
        args (argparse.Namespace): The arguments.
        parts (Sequence[str]): Fields that must be there.

    Raises:
        UsageError: If a field is missing or an option does not fit.
    """
    merged = deepcopy(cfg)
    merge_options(merged, args.cfg_options)
    require_parts(merged, *parts)
    late = host_of(merged) == 'mmpretrain'
    if not late:
        merge_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)
    yield
    if late:
        merge_options(cfg, args.cfg_options)


def set_loaders(cfg, args, names, **extra):
    """Set what MMPretrain's tools set in data loaders, and what flags ask.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): The arguments.
        names (Sequence[str]): Which of :data:`LOADERS`.
        **extra: Further defaults of MMPretrain.
    """
    for name in names:
        loader = cfg.get(name)
        if not loader:
            continue
        if host_of(cfg) == 'mmpretrain':
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


def drop_idle_persistence(cfg):
    """Keep no workers where there are none.

    Torch refuses to, so that ``--cfg-options train_dataloader.num_workers=0``
    alone would fail.

    Args:
        cfg (Config): The config, edited in place.
    """
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
        if host_of(cfg) == 'mmdet':
            log('--amp on the CPU: operators of mmcv, such as RoIAlign, take '
                'float32 only, and a detector that uses them stops',
                logging.WARNING)
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
