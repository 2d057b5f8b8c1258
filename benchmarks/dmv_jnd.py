"""DMV-JND on CIFAR-10: tolerance, noise, homogeneity, the curve, and bytes.

    python benchmarks/dmv_jnd.py full
    python benchmarks/dmv_jnd.py reduced

Trains the four classifiers and DMV-JND (what is done is skipped), measures
on training and test images, and writes
benchmarks/results/dmv_jnd_cifar10.json. `full` has the paper's settings but
the fast schedule (`--paper-schedule` for its own) and needs a GPU; `reduced`
is for two CPU cores.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List, Tuple

from common import ROOT, keep_every, publish, train_config
from mmengine.config import Config

from mmfeatjnd.apis import (
    HOMOGENEITY,
    Point,
    measure_dmv_jnd,
    measure_dmv_jnd_codec,
)
from mmfeatjnd.apis.launch import build_runner

CONFIGS = ROOT / 'configs' / 'dmv_jnd'
UNSEEN = ROOT / 'configs' / 'hosts' / 'resnet18-w32_cifar10.py'
PAPER_SCHEDULE = 'dmv-jnd_4xclassifiers_cifar10.py'
# Scales of the target N draw the tolerance curve; 1 is the paper's, and only
# there are several seeds. `every` thins out the images.
PROTOCOLS = dict(
    full=dict(
        config='dmv-jnd_4xclassifiers_cifar10_fast.py',
        seeds=(0, 1, 2),
        scales=dict(
            clipped=(0.5, 1.5, 2.0, 2.5), unclipped=(0.5, 1.25, 1.5, 2.0)),
        every=1,
        train_every=1),
    reduced=dict(
        config='dmv-jnd_4xnarrow_cifar10.py',
        seeds=(0, 1),
        scales=dict(clipped=(1.5, 2.0, 2.5), unclipped=(1.5, )),
        every=5,
        train_every=50))
#: How x + e is read; docs/dmv_jnd.md says why.
VARIANTS = {'clipped': {}, 'unclipped': {'model.clip': False}}
MAIN = 'clipped'
CONTROLS = ('gaussian', 'random-sign', 'sign-flipped')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('protocol', choices=PROTOCOLS)
    parser.add_argument('--paper-schedule', action='store_true')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks/dmv_jnd'))
    parser.add_argument(
        '--train-only',
        nargs=3,
        metavar=('VARIANT', 'SCALE', 'SEED'),
        help='train one DMV-JND and stop, e.g. to train several at once')
    return parser.parse_args()


class Benchmark:
    """The trainings and measurements of one protocol."""

    def __init__(self, args) -> None:
        self.protocol = PROTOCOLS[args.protocol]
        name = PAPER_SCHEDULE if args.paper_schedule else \
            self.protocol['config']
        self.config = CONFIGS / name
        self.work_dir = args.work_dir
        self.classifiers = {}
        for i, task in enumerate(Config.fromfile(self.config).model.tasks):
            config = Path(task.config)
            self.classifiers[f'model.tasks.{i}.checkpoint'] = train_config(
                config, args.work_dir / config.stem, amp=True)

    def train(self, variant: str, scale: float,
              seed: int) -> Tuple[Config, str]:
        """Train one DMV-JND; its config for tests, and its checkpoint."""
        work_dir = (
            self.work_dir / self.config.stem /
            f'{variant}_scale{scale:g}_seed{seed}')
        options = {
            **self.classifiers,
            **VARIANTS[variant],
            'model.objective.target_scale': scale,
            'randomness.seed': seed,
        }
        idle = dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator'))
        checkpoint = train_config(self.config, work_dir, True,
                                  dict(options, **idle))
        cfg = Config.fromfile(self.config)
        cfg.merge_from_dict(options)
        cfg.work_dir = str(work_dir / 'test')
        return cfg, checkpoint

    def rows(self, variant: str, scale: float, seed: int,
             points: List[Point]) -> List[Dict]:
        """Train and measure one DMV-JND."""
        cfg, checkpoint = self.train(variant, scale, seed)
        rows = []
        for split, every in (('test', self.protocol['every']),
                             ('train', self.protocol['train_every'])):
            name = f'{split}_every{every}_{len(points)}points.json'
            file = Path(cfg.work_dir).parent / name
            if not file.is_file():
                measured = measure_dmv_jnd(cfg, checkpoint, points, split,
                                           every)
                file.write_text(json.dumps(measured))
            for row in json.loads(file.read_text()):
                row.update(
                    split=split, variant=variant, scale=scale, seed=seed)
                rows.append(row)
        return rows

    def variant(self, variant: str) -> List[Dict]:
        """All rows of a variant."""
        first, *others = self.protocol['seeds']
        rows = []
        for seed in (first, *others):
            points = [Point()] + [Point(name, seed=seed) for name in CONTROLS]
            if seed == first:
                points += [Point(strength=k) for k in HOMOGENEITY]
            rows += self.rows(variant, 1.0, seed, points)
        for scale in self.protocol['scales'][variant]:
            rows += self.rows(variant, scale, first,
                              [Point(), Point('gaussian', seed=first)])
        return rows

    def codec(self, variant: str, seed: int) -> List[Dict]:
        """RCA against bytes, of one DMV-JND, on test images."""
        cfg, checkpoint = self.train(variant, 1.0, seed)
        every = self.protocol['every']
        file = Path(cfg.work_dir).parent / f'codec_every{every}.json'
        if not file.is_file():
            rows = measure_dmv_jnd_codec(cfg, checkpoint, every=every)
            file.write_text(json.dumps(rows))
        return json.loads(file.read_text())

    def unseen(self, variant: str, seed: int) -> List[Dict]:
        """Accuracy of a classifier that DMV-JND never saw, by way of its data
        preprocessor, on test images."""
        _, jnd = self.train(variant, 1.0, seed)
        host = train_config(
            UNSEEN, self.work_dir.parent / 'cifar10' / 'host', amp=True)
        every = self.protocol['every']
        file = Path(jnd).parent / f'unseen_every{every}.json'
        if file.is_file():
            return json.loads(file.read_text())
        rows = []
        for distortion in ('clean', 'dmv-jnd', *CONTROLS):
            cfg = Config.fromfile(UNSEEN)
            cfg.load_from = host
            cfg.work_dir = str(file.parent / 'unseen')
            cfg.data_preprocessor.update(
                type='mmfeatjnd.DMVJNDPreprocessor',
                host='mmpretrain.ClsDataPreprocessor',
                jnd=dict(config=str(self.config), checkpoint=jnd),
                seed=seed)
            if distortion == 'clean':
                cfg.data_preprocessor.test = False
            else:
                cfg.data_preprocessor.distortion = distortion
            if every > 1:
                keep_every(cfg, every, file.parent)
            metrics = build_runner(cfg).test()
            rows.append(dict(distortion=distortion, metrics=metrics))
        file.write_text(json.dumps(rows))
        return rows


def main():
    args = parse_args()
    benchmark = Benchmark(args)
    if args.train_only:
        variant, scale, seed = args.train_only
        benchmark.train(variant, float(scale), int(seed))
        return
    protocol = benchmark.protocol
    first = protocol['seeds'][0]
    publish(
        'dmv_jnd_cifar10',
        dict(
            command='python benchmarks/dmv_jnd.py ' + ' '.join(sys.argv[1:]),
            config=benchmark.config.stem,
            dataset='CIFAR-10',
            reduced=args.protocol == 'reduced',
            every=protocol['every'],
            train_every=protocol['train_every'],
            first_seed=first,
            batch_size=Config.fromfile(
                benchmark.config).test_dataloader.batch_size,
            codec=benchmark.codec(MAIN, first),
            unseen=benchmark.unseen(MAIN, first),
            unseen_host=UNSEEN.stem,
            rows=[r for v in VARIANTS for r in benchmark.variant(v)]))


if __name__ == '__main__':
    main()
