"""FeatJND on a stock config, without a config of one's own."""
import copy
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

import mmfeatjnd
from mmfeatjnd.functional import channel_dim, to_channels_first
from mmfeatjnd.models import FeatJNDNeck, neck_at
from mmfeatjnd.models.hosts import build_host
from mmfeatjnd.utils import ConfigError, config_library, type_name

#: How the estimator is trained, below the shipped configs.
SCHEDULE = '_base_/schedules/featjnd_1k.py'
#: Heights and widths of the inputs of a dry run, until one goes through;
#: backbones with a fixed input take that of the config.
SIZES = (64, 224)


def add_featjnd(cfg: Config,
                split: str = 'backbone',
                levels: Optional[Sequence[int]] = None,
                estimator: Optional[dict] = None,
                in_channels: Optional[Sequence[int]] = None) -> Config:
    """Put FeatJND on the host of a stock config.

    The host's neck is wrapped, the schedule becomes that of the shipped
    configs, and the channels at the split are those of a dry run on a tiny
    input. The host's data, evaluators and ``load_from`` stay.

    Args:
        cfg (Config): A config of MMDetection, MMPretrain or MMSegmentation;
            it is not changed.
        split (str): The split point, see
            :class:`mmfeatjnd.models.FeatJNDNeck`. Defaults to 'backbone'.
        levels (Sequence[int], optional): The levels to work on. Defaults to
            None: all that the split emits.
        estimator (dict, optional): Config of the estimator. Defaults to None:
            a ``ConvEstimator``, of tokens a ``TokenEstimator``.
        in_channels (Sequence[int], optional): Channels of every level that
            the split emits. Defaults to None: of a dry run.

    Returns:
        Config: What a config of ``configs/featjnd`` would say.

    Raises:
        ConfigError: It has FeatJND already, or its host has no neck or no
            such split, or does not run.

    Example:
        >>> cfg = add_featjnd(stock_cfg, split='backbone.layer2')
        >>> cfg.model.type, cfg.model.host, list(cfg.model.neck.in_channels)
        ('mmfeatjnd.FeatJND', 'mmpretrain.ImageClassifier', [16])
        >>> cfg.train_cfg.max_iters
        1000
    """
    cfg = copy.deepcopy(cfg)
    model, library = cfg.model, config_library(cfg)
    name = type_name(model)
    if name in ('FeatJND', 'build_featjnd') or 'featjnd' in (
            type_name(model.get('neck') or {}) or '').lower():
        raise ConfigError(f'{cfg.filename} has FeatJND already')
    if in_channels is None or estimator is None:
        levels_there = look_at_split(cfg, split)
        in_channels = in_channels or [c for c, _ in levels_there]
        maps = all(dims == 4 for _, dims in levels_there)
        estimator = estimator or dict(
            type=f'mmfeatjnd.{"Conv" if maps else "Token"}Estimator')
    neck = dict(
        type='mmfeatjnd.FeatJNDNeck',
        neck=model.get('neck'),
        split=split,
        in_channels=list(in_channels),
        estimator=estimator)
    if levels is not None:
        neck['levels'] = list(levels)
    # not by `update`, which would merge the two necks
    model.neck = neck
    model.type, model.host = 'mmfeatjnd.FeatJND', f'{library}.{name}'
    ours = schedule()
    for part in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
        cfg[part] = ours.pop(part)
    cfg.merge_from_dict(ours)
    # of a config that leaves them to MMEngine
    for hook, kind in (('logger', 'LoggerHook'),
                       ('checkpoint', 'CheckpointHook')):
        cfg.default_hooks[hook].setdefault('type', kind)
    return cfg


def schedule() -> dict:
    """How the shipped configs train an estimator."""
    package = Path(mmfeatjnd.__file__).parent
    # installed, configs lie in .mim, as in the host libraries
    roots = package / '.mim', package.parent
    path, *_ = (root / 'configs' / SCHEDULE for root in roots
                if (root / 'configs' / SCHEDULE).is_file())
    found = Config.fromfile(path).featjnd_schedule.to_dict()
    for part in ('optim_wrapper', 'train_cfg'):
        del found[part]['_delete_']  # of a config that inherits it
    return found


def look_at_split(cfg: Config, split: str) -> List[Tuple[int, int]]:
    """What a split emits, of a dry run on a tiny input with random weights.

    Args:
        cfg (Config): A config of a plain host.
        split (str): The split point.

    Returns:
        list[tuple[int, int]]: By level the channels, and the number of
        dimensions: 4 of maps, 3 of tokens, 2 of vectors.

    Raises:
        ConfigError: There is no such split, or the host does not run.
    """
    host = build_host(copy.deepcopy(cfg))  # hosts edit their configs
    neck = neck_at(host.eval(), split)
    problem = None
    for size in sizes_of(cfg):
        try:
            found = _dry_run(host, neck, size)
        except Exception as error:  # whatever a host makes of this size
            problem = problem or error
            continue
        if found:
            return [found.get(i, (0, 4)) for i in range(max(found) + 1)]
    told = f' ({type(problem).__name__}: {problem})' if problem else ''
    raise ConfigError(
        f"the channels at split='{split}' of {type(host).__name__} cannot be "
        f'found by a dry run{told}. Give in_channels=[...], one number for '
        'each level that the split emits, and estimator=dict(type=...).')


def _dry_run(host: nn.Module, neck: FeatJNDNeck,
             size: int) -> Dict[int, Tuple[int, int]]:
    found: Dict[int, Tuple[int, int]] = {}

    def keep(feature: Tensor, level: int) -> Tensor:
        first = to_channels_first(feature, neck.layout_of(feature, level))
        found[level] = first.size(channel_dim(first)), feature.dim()
        return feature

    with torch.no_grad(), neck.changing(keep):
        host.extract_feat(torch.zeros(1, 3, size, size))
    return found


def sizes_of(cfg: Config) -> List[int]:
    """Heights and widths of inputs that a host may take.

    Args:
        cfg (Config): Its config.

    Returns:
        list[int]: Small ones first, then those that it says it is made for.
    """
    found = list(SIZES)

    def look(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ('img_size', 'pretrain_img_size', 'input_size'):
                    found.append(value if isinstance(value, int) else
                                 max(value))
                else:
                    look(value)

    look(cfg.model.to_dict())
    return list(dict.fromkeys(found))
