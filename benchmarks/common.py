"""What the benchmark scripts share: the data sets and their hosts, training
and measuring once, and publishing."""
import argparse
import copy
import json
import math
import multiprocessing
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from cache import alone, cached, content, file_hash, keyed, write_json
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import load_checkpoint

import mmfeatjnd
from mmfeatjnd.apis import (
    build_model,
    enable_amp,
    estimate_metric,
    save_estimator,
    train_once,
)
from mmfeatjnd.cli.arguments import count
from mmfeatjnd.compat import installed_versions
from mmfeatjnd.evaluation.rows import is_clean, value_of
from mmfeatjnd.models import codec_plan, metric_file, save_metric
from mmfeatjnd.utils import config_library, load_safely

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
CONFIGS = ROOT / 'configs'
#: Of what the same command trains and measures. Whoever changes that raises
#: it: what was kept of the former protocol is then no longer taken, and the
#: report marks what was published by it.
PROTOCOL = 3
SEEDS = (0, 1, 2)
#: Of the files that are kept.
FORMATS = [metric_file.FORMAT_VERSION, codec_plan.FORMAT_VERSION]
#: The validation that a training for a benchmark leaves out.
IDLE = dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator'))


def _benchmark(data: str,
               dataset: str,
               host: str,
               config: str,
               test_split: str = 'test',
               amp: bool = False,
               checkpoint: Optional[str] = None) -> dict:
    """A benchmark: what its results are called by, its data set, its host and
    its config, below ``configs``, and the host's weights where they are
    given."""
    return dict(
        data=data,
        dataset=dataset,
        train_split='train',
        test_split=test_split,
        host=f'hosts/{host}.py',
        featjnd=f'featjnd/{config}.py',
        # at several splits
        quantization=f'hosts/{host}.py',
        amp=amp,
        **({} if checkpoint is None else dict(checkpoint=checkpoint)))


#: What the scripts can measure.
BENCHMARKS = {
    'cifar10':
    _benchmark('cifar10', 'CIFAR-10', 'resnet18-w32_1xb128-5e_cifar10',
               'resnet18-w32_cifar10', amp=True),
    # mmcv's CPU operators take float32 only
    'dsb2018':
    _benchmark('dsb2018', 'DSB2018', 'mask-rcnn_r18_1xb4-8e_dsb2018',
               'mask-rcnn_r18_dsb2018', 'val'),
    # the hosts and the data of a user: stock configs, real weights
    'yolox':
    _benchmark('coco', 'COCO (135 pictures)', 'yolox-nano_1xb4_coco-small',
               'yolox-nano_coco-small', 'val',
               checkpoint='data/hosts/yolox_nano_coco.pth'),
    'mobilenet':
    _benchmark('in1k', 'ImageNet (a picture of each class)',
               'mobilenet-v2_1xb32_imagenet-sample',
               'mobilenet-v2_imagenet-sample',
               checkpoint='data/hosts/mobilenet_v2_in1k.pth'),
    # of full width and length: need a GPU
    'cifar10-full':
    _benchmark('cifar10-full', 'CIFAR-10', 'resnet18_1xb512-24e_cifar10',
               'resnet18_cifar10', amp=True),
    'dsb2018-full':
    _benchmark('dsb2018-full', 'DSB2018', 'mask-rcnn_r50_1xb8-30e_dsb2018',
               'mask-rcnn_r50_dsb2018', 'val'),
}


def existing(text: str) -> str:
    """The argument of a file that must be there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f'no file at {text}')
    return text


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
        type=count,
        default=1,
        help='test on every N-th image; the result is marked reduced')
    parser.add_argument(
        '--host', type=existing, help='use this host checkpoint')
    parser.add_argument(
        '--jobs',
        type=count,
        default=1,
        help='so many trainings and measurements at once, each a process')
    return parser


def environment() -> dict:
    """What a measurement depends on beside its settings."""
    return dict(
        protocol=PROTOCOL,
        versions=dict(
            installed_versions(),
            mmfeatjnd=mmfeatjnd.__version__,
            python=platform.python_version()),
        device='cuda' if torch.cuda.is_available() else 'cpu')


def read_config(path: Path, options: Optional[dict] = None) -> Config:
    """A config with options, as ``--cfg-options``."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    return cfg


def train(cfg: Config, work_dir: Path, amp: bool = False) -> str:
    """Train a config, unless that was done with all that is in it.

    Args:
        cfg (Config): The config.
        work_dir (Path): Where the run lives; a digest of the config and of
            the checkpoints that it names is added, so that no run takes
            another's place.
        amp (bool): Whether in mixed precision, as ``--amp``. Defaults to
            False.

    Returns:
        str: The last checkpoint.
    """
    cfg = copy.deepcopy(cfg)
    if amp:
        enable_amp(cfg)
    key = dict(
        config=content(cfg),
        protocol=PROTOCOL,
        version=mmfeatjnd.__version__)
    folder = keyed(work_dir, key)
    cfg.work_dir = str(folder)
    with alone(folder):
        write_json(folder / 'key.json', key)
        return train_once(cfg)


def train_host(benchmark: str, work_dir: Path) -> str:
    """Train the host of a benchmark, once for all scripts, unless its
    weights are given.

    Args:
        benchmark (str): Key of ``BENCHMARKS``.
        work_dir (Path): The argument ``--work-dir``.

    Returns:
        str: The checkpoint.
    """
    settings = BENCHMARKS[benchmark]
    if 'checkpoint' in settings:
        return existing(settings['checkpoint'])
    return train(
        read_config(CONFIGS / settings['host']), work_dir / benchmark / 'host',
        settings['amp'])


def train_estimator(config: Path, host: str, work_dir: Path, amp: bool,
                    options: dict) -> str:
    """Train one estimator and write it to a file of its own.

    Args:
        config (Path): The config.
        host (str): Checkpoint of the host.
        work_dir (Path): Where the run lives, see :func:`train`.
        amp (bool): Whether in mixed precision.
        options (dict): Options of the config, as ``--cfg-options``.

    Returns:
        str: The estimator file.
    """
    # the curve tests it
    cfg = read_config(config, dict(options, load_from=host, **IDLE))
    checkpoint = train(cfg, work_dir, amp)
    file = Path(checkpoint).with_name('estimator.safetensors')
    if not file.is_file():
        model = build_model(cfg)
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
        save_estimator(model, file)
    return str(file)


def _asked(argv: Sequence[str]) -> List[str]:
    """Arguments without those that say where and how fast."""
    kept, skip = [], False
    for word in argv:
        name, _, value = word.partition('=')
        if name in ('--work-dir', '--jobs'):
            skip = not value
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def count_images(cfg: Config, dataset: dict) -> int:
    """How many images a data set of a config has."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return len(DATASETS.build(copy.deepcopy(dataset)))


def draws(cfg: Config) -> int:
    """How many images a training of a config draws, counted again when they
    come again."""
    loader, loop = cfg.train_dataloader, cfg.train_cfg
    if 'max_iters' in loop:
        return loop.max_iters * loader.batch_size
    return loop.max_epochs * count_images(cfg, loader.dataset)


def describe_split(name: str, used: int, whole: int) -> str:
    """A split, and how much of it was used."""
    if used == whole:
        return f'{name}, all {whole:,} images'
    return f'{name}, {used:,} of {whole:,} images'


def keep_every(cfg: Config, step: int, work_dir: Path) -> None:
    """Test on every ``step``-th image; the classes stay balanced."""
    dataset = cfg.test_dataloader.dataset
    if 'ann_file' not in cfg.test_evaluator:
        dataset.indices = list(range(0, count_images(cfg, dataset), step))
        return
    # COCO's metric counts every image of its annotation file
    coco = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
    coco['images'] = coco['images'][::step]
    kept = {image['id'] for image in coco['images']}
    coco['annotations'] = [
        a for a in coco['annotations'] if a['image_id'] in kept
    ]
    file = work_dir.resolve() / f'every{step}.json'
    write_json(file, coco)
    dataset.ann_file = cfg.test_evaluator.ann_file = str(file)


class CurveBenchmark:
    """A curve on one data set: what is trained and measured for it.

    Args:
        args (argparse.Namespace): Arguments of :func:`benchmark_parser`.
        kind (str): Name of the script.
        settings (dict): The protocol: by the name of an argument, the values
            that it has by default. Fewer make the result a reduced one.
    """

    def __init__(self, args: argparse.Namespace, kind: str,
                 settings: Dict[str, Sequence]) -> None:
        self.args = args
        self.kind = kind
        self.benchmark = BENCHMARKS[args.benchmark]
        self.config = CONFIGS / self.benchmark.get(
            kind, self.benchmark['featjnd'])
        # of all scripts: they share the estimators
        self.training = CONFIGS / self.benchmark['featjnd']
        self.work_dir = args.work_dir / args.benchmark
        self.asked = {name: list(getattr(args, name)) for name in settings}
        self.complete = all(
            set(settings[name]) <= set(self.asked[name]) for name in settings)
        # before anything is trained: whether the data are there
        cfg = read_config(self.training)
        self.split = cfg.model.neck.get('split', 'backbone')
        cfg = read_config(self.config)
        self.detector = config_library(cfg) == 'mmdet'
        self.whole = count_images(cfg, cfg.test_dataloader.dataset)
        self.used = len(range(0, self.whole, args.every))
        self.host = args.host or train_host(args.benchmark, args.work_dir)

    def measure(self, name: str, measure: Callable[..., List[dict]],
                estimators: Sequence[str] = (), **asked) -> List[dict]:
        """The rows; what is measured already is taken as it is.

        Args:
            name (str): Names the file of the rows.
            measure (Callable): Function from config, host and estimators to
                the rows.
            estimators (Sequence[str]): Files of them, one for each seed.
                Defaults to none.
            asked: What else the measurement depends on.

        Returns:
            list[dict]: The rows.
        """
        cfg = read_config(self.config)
        key = dict(
            environment(),
            benchmark=self.args.benchmark,
            config=cfg,
            host=self.host,
            estimators=list(estimators),
            every=self.args.every,
            images=self.used,
            seeds=SEEDS,
            **asked)

        def run():
            cfg.work_dir = str(self.work_dir / 'test')
            if self.args.every > 1:
                keep_every(cfg, self.args.every, self.work_dir)
            return measure(cfg, self.host, list(estimators))

        return cached(self.work_dir / f'rows_{name}.json', key, run)

    def estimators(self, mode: str, options: dict) -> List[str]:
        """An estimator file for each seed; what is trained is not trained
        again.

        Args:
            mode (str): Names them.
            options (dict): See :meth:`measure`.
        """
        asked = [(self.training, self.host,
                  self.work_dir / f'{mode}_seed{seed}', self.benchmark['amp'],
                  {
                      'randomness.seed': seed,
                      **options
                  }) for seed in SEEDS]
        return self._in_processes(train_estimator, asked)

    def measure_parts(self,
                      mode: str,
                      options: dict,
                      settings: List[dict],
                      measure: Callable[..., List[dict]],
                      size: int = 12,
                      estimators: Optional[str] = None) -> List[dict]:
        """The rows of many settings, some at a time: each part is kept, so
        that a run that is cut goes on, and ``--jobs`` of them run at once.

        Args:
            mode (str): Names the estimators and the files of the rows.
            options (dict): See :meth:`measure`.
            settings (list[dict]): What is measured, JSON each.
            measure (Callable): A function of a module from config, host,
                estimators and settings to the row of the clean host and one
                for each setting.
            size (int): Settings in a part. Defaults to 12.
            estimators (str, optional): The mode whose estimators are used.
                Defaults to None: this one's.

        Returns:
            list[dict]: The clean row, then one for each setting.
        """
        common = (self.config, options, self.host,
                  self.estimators(estimators or mode, options),
                  self.args.every, self.work_dir)
        # as many as there are processes
        size = min(size, -(-len(settings) // self.args.jobs))
        parts = [settings[i:i + size] for i in range(0, len(settings), size)]
        found = self._in_processes(_measure_part, [
            (f'{mode}_{i}', self.used, *common, part, measure)
            for i, part in enumerate(parts)
        ])
        clean_of([row[0] for row in found])
        return found[0][:1] + [row for rows in found for row in rows[1:]]

    def task_metric(self) -> str:
        """The file of the task metric of the split, estimated once from 256
        training pictures."""
        cfg = read_config(self.config)
        file = self.kept_file('metric', cfg)
        if not file.is_file():
            save_metric(estimate_metric(cfg, self.host), file)
        return str(file)

    def kept_file(self, name: str, cfg: Config, **asked) -> Path:
        """Where a file of tensors is kept that depends on the host, and on
        what else is asked; the config's work dir becomes its folder."""
        folder = keyed(
            self.work_dir / name,
            content(dict(environment(), formats=FORMATS, config=cfg,
                         host=self.host, **asked)))
        cfg.work_dir = str(folder)
        return folder / f'{name}.safetensors'

    def _in_processes(self, function: Callable, arguments: List[tuple]):
        jobs = min(self.args.jobs, len(arguments), os.cpu_count() or 1)
        if jobs <= 1:
            return [function(*x) for x in arguments]
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(jobs, context) as pool:
            return list(pool.map(function, *zip(*arguments)))

    def publish(self, claim: str, rows: List[dict],
                **more) -> Path:
        """:func:`publish` the rows.

        Args:
            claim (str): What the benchmark is to show.
            rows (list[dict]): Rows, of which those of the clean host
                become the field ``clean``.
            **more: What else the result holds, such as ``comparisons``.
        """
        benchmark = self.benchmark
        command = f'make bench-{self.kind}-{self.args.benchmark}'
        if asked := _asked(sys.argv[2:]):
            command = ' '.join(['python', f'benchmarks/{self.kind}.py',
                                self.args.benchmark, *asked])
        host = read_config(CONFIGS / benchmark['host'])
        train_split = 'not known: --host names the checkpoint'
        if 'checkpoint' in benchmark:
            train_split = 'that of the stock weights'
        elif not self.args.host:
            images = count_images(host, host.train_dataloader.dataset)
            train_split = f'{benchmark["train_split"]}, {images:,} images'
        return publish(
            f'{self.kind}_{benchmark["data"]}',
            dict(
                claim=claim,
                command=command,
                host=Path(benchmark['host']).stem,
                host_checkpoint=f'sha256:{file_hash(self.host)}',
                split_point=self.split,
                dataset=benchmark['dataset'],
                train_split=train_split,
                estimator_draws=draws(read_config(self.training)),
                test_split=describe_split(benchmark['test_split'], self.used,
                                          self.whole),
                clean=clean_of(rows),
                reduced=self.used < self.whole or not self.complete,
                **more,
                rows=[row for row in rows if not is_clean(row)]))


def _measure_part(name: str, used: int, config: Path, options: dict, host: str,
                  estimators: List[str], every: int, work_dir: Path,
                  settings: List[dict], measure: Callable) -> List[dict]:
    """One part of :meth:`CurveBenchmark.measure_parts`."""
    load_safely()
    cfg = read_config(config, options)
    key = dict(
        environment(),
        config=cfg,
        host=host,
        estimators=estimators,
        every=every,
        images=used,
        settings=settings)

    def run():
        cfg.work_dir = str(work_dir / 'test' / name)
        if every > 1:
            keep_every(cfg, every, work_dir)
        return measure(cfg, host, estimators, settings)

    return cached(work_dir / f'rows_{name}.json', key, run)


def clean_of(rows: List[dict]) -> dict:
    """The metrics of the clean host, which must be the same in all parts of a
    benchmark, but for a device that does not round alike twice."""
    first, *others = [row['metrics'] for row in rows if is_clean(row)]
    for other in others:
        if not np.allclose([value_of(first, m) for m in first],
                           [value_of(other, m) for m in first],
                           rtol=0.01, atol=0, equal_nan=True):
            raise RuntimeError('the clean host was measured twice, and came '
                               f'out as {first} and as {other}')
    return first


def finite(value: Any) -> Any:
    """JSON's null in place of NaN and infinity, of which it knows nothing."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


#: Names of distortions and policies in published results, which the form of
#: these fixes, by those in the package.
PUBLISHED_NAMES = dict(
    distortion={
        'uniform-noise': 'uniform'
    },
    policy={
        'permuted-steps': 'permuted',
        'one-step': 'uniform',
        'jpeg': 'image-jpeg',
        'webp': 'image-webp',
        'avif': 'image-avif'
    })


#: Keys of published rows, by those in the package, likewise.
PUBLISHED_KEYS = dict(mean_bits='bits', split='split_point')


def renamed(rows: List[dict], back: bool = False) -> List[dict]:
    """Rows with the names and keys of published results.

    Args:
        rows (list[dict]): Rows with the names of the package.
        back (bool): Whether to do the reverse. Defaults to False.
    """
    result = []
    for row in rows:
        row = dict(row)
        # 'uniform' of a plan is none of raw tokens
        plan = row.keys() & {'split', 'split_point'}
        for field, names in PUBLISHED_NAMES.items():
            if back:
                names = {theirs: ours for ours, theirs in names.items()}
            if field in row and not plan:
                row[field] = names.get(row[field], row[field])
        for pair in PUBLISHED_KEYS.items():
            new, old = pair if back else pair[::-1]
            # 'split' of a row of DMV-JND is one of the data
            if old in row and 'policy' in row:
                row[new] = row.pop(old)
        result.append(row)
    return result


def publish(name: str, result: dict) -> Path:
    """Write a result with the protocol, the versions and the device that it
    comes from."""
    result = dict(result, **environment())
    # last: the header stays in sight
    result['rows'] = renamed(result.pop('rows'))
    file = RESULTS / f'{name}.json'
    write_json(file, finite(result), indent=1, allow_nan=False)
    print(f'Saved to {file}')
    return file
