"""Arguments of the command-line tools.

MMDetection, MMPretrain and MMSegmentation give their ``tools/train.py`` and
``tools/test.py`` the same flags; what a flag does to a config is in
:mod:`.merge_train` and :mod:`.merge_test`.
"""
import argparse
import math
import os
from pathlib import Path
from typing import Optional, Sequence, Union

from .options import add_cfg_options, add_featjnd_flag, add_hook


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config', help='path of the config file, or the name of a model')
    add_featjnd_flag(parser)
    parser.add_argument(
        '--work-dir',
        help='folder of logs, metrics and checkpoints; by default '
        '`work_dir` of the config, else ./work_dirs/<config name>')
    add_cfg_options(parser)
    add_hook(parser)
    _add_launcher(parser)
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='turn off pin_memory in the dataloaders')
    return parser


def _add_launcher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started')
    # both spellings are in use: torch changed its own in 2.0
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def parse_launched(
        parser: argparse.ArgumentParser,
        argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse the arguments of a tool that takes ``--launcher``.

    Args:
        parser (argparse.ArgumentParser): The parser.
        argv (list[str], optional): Arguments, without the program's name.
            Defaults to None: those of the process.

    Returns:
        argparse.Namespace: The arguments. ``LOCAL_RANK`` is in the
        environment.
    """
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def parse_train_args(
        argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
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
    return parse_launched(parser, argv)


def parse_test_args(
        argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse the arguments of ``tools/test.py``.

    Args:
        argv (list[str], optional): Arguments, without the program's name.
            Defaults to None: those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = _parser('Test a model of any of the three host libraries')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='path or URL of the checkpoint; by default, of a model that is '
        'named, what its index says')
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
    args = parse_launched(parser, argv)
    if args.out_item and not args.out:
        parser.error('--out-item says what --out holds: give --out as well')
    return args


def curve_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that the tools for curves share.

    Args:
        description (str): What the tool does.

    Returns:
        argparse.ArgumentParser: For the tool to add its own to, and for
        :func:`parse_launched`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config', help='config file path, of FeatJND or of a stock host')
    add_split(parser)
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
        '--nats',
        action='store_true',
        help="also measure how far the host's answer moves (metric kl)")
    parser.add_argument(
        '--draws',
        type=int,
        default=0,
        help='so many draws of the bootstrap over images in every row of the '
        'results, for intervals')
    add_out_folder(parser)
    _add_launcher(parser)
    return parser


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add where a stock host is split, see
    :func:`mmfeatjnd.models.neck_at`, and ``--featjnd``, which puts an
    estimator there, whose weights are in the checkpoint.

    Args:
        parser (argparse.ArgumentParser): Edited in place.
    """
    add_featjnd_flag(parser)
    parser.add_argument(
        '--split',
        help="split point of a stock host, e.g. neck or backbone.layer3; by "
        "default 'backbone'. A FeatJND config says it itself")
    parser.add_argument(
        '--levels',
        nargs='+',
        type=int,
        help='levels of a stock host to work on; by default all that the '
        'split emits')


def add_out_folder(parser: argparse.ArgumentParser) -> None:
    """The arguments of a tool whose results go to a folder.

    Args:
        parser (argparse.ArgumentParser): Edited in place.
    """
    parser.add_argument(
        '--out', required=True, type=Path, help='folder for the results')
    parser.add_argument(
        '--work-dir', help='the dir to save logs; OUT by default')
    add_cfg_options(parser)


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError('a path is needed, not nothing')
    return text


def positive(text: str) -> float:
    """A positive, finite number."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f'{text} is not positive and finite')
    return value


def count(text: str) -> int:
    """A number of things, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than 1')
    return value


def block(text: str) -> Union[int, str]:
    """The side of a block, tokens, or 'auto'."""
    return text if text == 'auto' else count(text)
