"""What the flags of ``tools/test.py`` do to a config.

The functions here edit a :class:`mmengine.config.Config` the way the library
of its model would.
"""
import argparse
from copy import deepcopy
from typing import List

from mmengine.config import Config, ConfigDict

from mmfeatjnd.apis.mixed_precision import warn_of_amp
from mmfeatjnd.compat import HOST_LIBRARIES
from mmfeatjnd.utils import check_writable, config_library
from .console import UsageError
from .merging import merged_options, set_loaders
from .options import drop_idle_persistence
from .results import DUMP_SUFFIXES, check_suffix

METRIC_SUFFIXES = ('.json', '.yaml', '.yml') + DUMP_SUFFIXES


def merge_test_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Edit a config as the flags of ``tools/test.py`` ask.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): Arguments of :func:`parse_test_args`.

    Returns:
        Config: The same config.

    Raises:
        UsageError: If the config cannot do what a flag asks.
    """
    parts = ('model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    with merged_options(cfg, args, parts):
        if args.amp:
            warn_of_amp(cfg)
            cfg.test_cfg.fp16 = True
        if args.show or args.show_dir:
            enable_visualization(cfg, args)
        set_loaders(cfg, args, ['test_dataloader'])
    drop_idle_persistence(cfg)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.out:
        route_output(cfg, args)
    # after the options, so that `model.backbone...` still names the backbone
    if args.tta:
        enable_tta(cfg)
    return cfg


def enable_visualization(cfg: Config, args: argparse.Namespace) -> None:
    """Turn on the host's visualization hook.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): Arguments with ``show``, ``show_dir``,
            ``wait_time`` and ``interval``.

    Raises:
        UsageError: If ``default_hooks`` has no ``visualization``.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if not hook:
        raise UsageError(
            '--show and --show-dir need the visualization hook of the host '
            'library: set `default_hooks.visualization` in the config, as in '
            "the host's default_runtime.py")
    host = _known_host(cfg, '--show and --show-dir')
    if args.show_dir and host != 'mmdet':  # there it is inside the work dir
        check_writable(args.show_dir, folder=True)
    if host == 'mmpretrain':
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
        if host == 'mmseg':
            cfg.visualizer['save_dir'] = args.show_dir
        else:
            hook['test_out_dir'] = args.show_dir


def enable_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation.

    Where the config has no ``tta_model`` or ``tta_pipeline``, MMDetection and
    MMPretrain models get horizontal flips.

    Args:
        cfg (Config): The config, edited in place.

    Raises:
        UsageError: If there is no default for the host.
    """
    host = config_library(cfg)
    if host == 'mmdet':
        nms = dict(type='nms', iou_threshold=0.5)
        model = dict(
            type=_in_scope(cfg, 'mmdet', 'DetTTAModel'),
            tta_cfg=dict(nms=nms, max_per_img=100))
    elif host == 'mmpretrain':
        model = dict(type='mmpretrain.AverageClsScoreTTA')
    else:
        missing = {'tta_model', 'tta_pipeline'} - set(cfg)
        if missing:
            raise UsageError(
                f'--tta has no default for {host} models: add '
                f'{" and ".join(sorted(missing))} to the config')

    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'tta_model' not in cfg:
        cfg.tta_model = model
    if 'tta_pipeline' not in cfg:
        flip = _in_scope(cfg, host, 'RandomFlip')
        cfg.tta_pipeline = _flip_pipeline(dataset.pipeline, host, flip)
    dataset.pipeline = deepcopy(cfg.tta_pipeline)

    wrapped = ConfigDict(**cfg.tta_model)
    wrapped.module = cfg.model
    # MMEngine gives the wrapper the top-level preprocessor, if there is one,
    # and the wrapper's replaces the model's own
    own, shared = (c.get('data_preprocessor') for c in (cfg.model, cfg))
    if own and shared and own != shared:
        wrapped.data_preprocessor = own
    cfg.model = wrapped


def _in_scope(cfg: Config, host: str, name: str) -> str:
    """A name as the config must write it, whose scope may be another."""
    return name if cfg.get('default_scope') == host else f'{host}.{name}'


def _known_host(cfg: Config, flag: str) -> str:
    host = config_library(cfg)
    if host not in HOST_LIBRARIES:
        raise UsageError(
            f'{flag}: the config does not say which library its model is of. '
            f'Set default_scope to one of {", ".join(HOST_LIBRARIES)}')
    return host


def _flip_pipeline(pipeline: List[dict], host: str, flip: str) -> List[dict]:
    *head, pack = deepcopy(list(pipeline))
    if host == 'mmdet':
        # the boxes are flipped back by these
        keys = tuple(
            pack.get('meta_keys', ('img_id', 'img_path', 'ori_shape',
                                   'img_shape', 'scale_factor')))
        pack['meta_keys'] = keys + tuple(
            k for k in ('flip', 'flip_direction') if k not in keys)
    flips = [dict(type=flip, prob=p) for p in (1., 0.)]
    return [*head, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def route_output(cfg: Config, args: argparse.Namespace) -> None:
    """Check ``--out``, and tell the metrics of MMSegmentation about it.

    Args:
        cfg (Config): The config, edited in place.
        args (argparse.Namespace): Arguments with ``out`` and ``out_item``.

    Raises:
        UsageError: If the suffix does not fit what is to be written.
        WriteError: If the folder cannot be written.
    """
    out = args.out
    if args.out_item == 'metrics':
        check_suffix(out, METRIC_SUFFIXES, 'metrics')
    elif config_library(cfg) != 'mmseg':
        check_suffix(out, DUMP_SUFFIXES, 'predictions')
    else:
        check_writable(out, folder=True)
        metrics = cfg.test_evaluator
        for metric in metrics if isinstance(metrics, list) else [metrics]:
            metric.update(output_dir=out, keep_results=True)
