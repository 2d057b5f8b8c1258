"""What the benchmark scripts share: the data sets and their hosts, training
once, and publishing."""
import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Callable, Optional

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import load_checkpoint

import mmfeatjnd
from mmfeatjnd.apis import build_model, save_estimator, train_once
from mmfeatjnd.apis.cli import enable_amp
from mmfeatjnd.apis.console import atomic_path
from mmfeatjnd.compat import installed_versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
SEEDS = (0, 1, 2)
BENCHMARKS = dict(
    cifar10=dict(
        amp=True,
        config='resnet18-w32_cifar10.py',
        dataset='CIFAR-10',
        train_split='train, all 50,000 images',
        test_split='test, all 10,000 images'),
    dsb2018=dict(
        amp=False,  # mmcv's CPU operators take float32 only
        config='mask-rcnn_r18_dsb2018.py',
        dataset='DSB2018',
        train_split='train, all 440 images',
        test_split='val, all 110 images'))


def benchmark_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of a benchmark on a data set."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('benchmark', choices=sorted(BENCHMARKS))
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        help='test on every N-th image; the result is marked reduced')
    parser.add_argument('--host', help='use this host checkpoint')
    parser.add_argument(
        '--reduced',
        action='store_true',
        help='mark the result as smaller than the protocol')
    return parser


def train_host(args) -> str:
    """Train the host of a benchmark, once for all scripts.

    Args:
        args (argparse.Namespace): Of :func:`benchmark_parser`.

    Returns:
        str: The checkpoint.
    """
    benchmark = BENCHMARKS[args.benchmark]
    return args.host or train_config(
        ROOT / 'configs' / 'hosts' / benchmark['config'],
        args.work_dir / args.benchmark / 'host', benchmark['amp'])


def train_config(config: Path,
                 work_dir: Path,
                 amp: bool = False,
                 options: Optional[dict] = None) -> str:
    """Train a config unless its work dir holds a finished run.

    Args:
        config (Path): The config.
        work_dir (Path): Where the run lives.
        amp (bool): In mixed precision, as ``--amp``. Defaults to False.
        options (dict, optional): As ``--cfg-options``. Defaults to None.

    Returns:
        str: The last checkpoint.
    """
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(options or {})
    if amp:
        enable_amp(cfg)
    return train_once(cfg)


def train_estimator(config: Path, host: str, work_dir: Path, amp: bool,
                    options: dict) -> str:
    """Train one estimator and write it to a file of its own.

    Args:
        config (Path): The config.
        host (str): Checkpoint of the host.
        work_dir (Path): Where the run lives.
        amp (bool): In mixed precision.
        options (dict): As ``--cfg-options``.

    Returns:
        str: The estimator file.
    """
    file = work_dir / 'estimator.pth'
    # the curve tests it
    idle = dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator'))
    checkpoint = train_config(config, work_dir, amp,
                              dict(options, load_from=host, **idle))
    if not file.is_file():
        model = build_model(Config.fromfile(work_dir / config.name))
        load_checkpoint(model, checkpoint, map_location='cpu')
        save_estimator(model, file)
    return str(file)


def measure_once(args, kind: str, mode: str, options: dict,
                 measure: Callable) -> list:
    """The rows of a benchmark, from the host and an estimator for each seed;
    what is trained or measured already is taken as it is.

    Args:
        args (argparse.Namespace): Of :func:`benchmark_parser`.
        kind (str): Folder in ``configs``.
        mode (str): Names the estimators and the file of the rows.
        options (dict): As ``--cfg-options``, in training and in testing.
        measure (Callable): From config, host and estimators to the rows.

    Returns:
        list[dict]: The rows.
    """
    benchmark = BENCHMARKS[args.benchmark]
    config = ROOT / 'configs' / kind / benchmark['config']
    work_dir = args.work_dir / args.benchmark
    file = work_dir / f'rows_{mode}.json'
    if file.is_file():
        return json.loads(file.read_text())
    host = train_host(args)
    estimators = [
        train_estimator(config, host, work_dir / f'{mode}_seed{seed}',
                        benchmark['amp'], {
                            'randomness.seed': seed,
                            **options
                        }) for seed in SEEDS
    ]
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir / 'test')
    cfg.merge_from_dict(options)
    if args.every > 1:
        keep_every(cfg, args.every, work_dir)
    rows = measure(cfg, host, estimators)
    file.write_text(json.dumps(rows))
    return rows


def keep_every(cfg: Config, step: int, work_dir: Path) -> None:
    """Test on every ``step``-th image; the classes stay balanced."""
    dataset = cfg.test_dataloader.dataset
    if 'ann_file' not in cfg.test_evaluator:
        init_default_scope(cfg.default_scope)
        size = len(DATASETS.build(dataset))
        dataset.indices = list(range(0, size, step))
        return
    # COCO's metric counts every image of its annotation file
    coco = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
    coco['images'] = coco['images'][::step]
    kept = {image['id'] for image in coco['images']}
    coco['annotations'] = [
        a for a in coco['annotations'] if a['image_id'] in kept
    ]
    file = work_dir.resolve() / f'every{step}.json'
    file.write_text(json.dumps(coco))
    dataset.ann_file = cfg.test_evaluator.ann_file = str(file)


def publish_curve(args, kind: str, claim: str, rows: list) -> Path:
    """:func:`publish` the rows of a benchmark, the first of which is clean.

    Args:
        args (argparse.Namespace): Of :func:`benchmark_parser`.
        kind (str): Name of the script and of its folder in ``configs``.
        claim (str): What the benchmark is to show.
        rows (list[dict]): The rows.
    """
    benchmark = dict(BENCHMARKS[args.benchmark])
    name = benchmark.pop('config')
    del benchmark['amp']
    if args.every > 1:
        split, _, size = benchmark['test_split'].partition(', all ')
        benchmark['test_split'] = f'{split}, one in {args.every} of {size}'
    command = f'make bench-{kind}-{args.benchmark}'
    if sys.argv[2:]:
        command = f'python benchmarks/{kind}.py ' + ' '.join(sys.argv[1:])
    neck = Config.fromfile(ROOT / 'configs' / kind / name).model.neck
    return publish(
        f'{kind}_{args.benchmark}',
        dict(
            claim=claim,
            command=command,
            host=Path(name).stem,
            split_point=neck.get('split', 'backbone'),
            **benchmark,
            clean=rows[0]['metrics'],
            reduced=args.every > 1 or args.reduced,
            rows=rows[1:]))


def publish(name: str, result: dict) -> Path:
    """Write a result with the versions and the device it comes from."""
    result = dict(result)
    result['versions'] = dict(
        installed_versions(),
        mmfeatjnd=mmfeatjnd.__version__,
        python=platform.python_version())
    result['device'] = 'cuda' if torch.cuda.is_available() else 'cpu'
    result['rows'] = result.pop('rows')  # last: the header stays in sight
    file = RESULTS / f'{name}.json'
    with atomic_path(str(file)) as path:
        Path(path).write_text(json.dumps(result, indent=1) + '\n')
    print(f'Saved to {file.relative_to(ROOT)}')
    return file
