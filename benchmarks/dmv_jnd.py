"""DMV-JND on CIFAR-10: tolerance, noise, homogeneity, the curve, and bytes.

    python benchmarks/dmv_jnd.py full
    python benchmarks/dmv_jnd.py reduced

Trains the four classifiers and DMV-JND (what is done is skipped), measures
on the training and the test images, and writes
benchmarks/results/dmv_jnd_cifar10.json. `full` has the paper's settings but
the fast schedule (`--paper-schedule` for its own) and needs a GPU; `reduced`
is for two CPU cores.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List, Tuple

from common import ROOT, publish, train_config
from mmengine.config import Config

from mmfeatjnd.apis import (
    HOMOGENEITY,
    Point,
    measure_dmv_jnd,
    measure_dmv_jnd_codec,
)

CONFIGS = ROOT / 'configs' / 'dmv_jnd'
PROTOCOLS = dict(
    full='dmv-jnd_4xclassifiers_cifar10_fast.py',
    reduced='dmv-jnd_4xnarrow_cifar10.py')
PAPER_SCHEDULE = 'dmv-jnd_4xclassifiers_cifar10.py'
SEEDS = (0, 1, 2)
#: Of the target N: the tolerance curve. 1 is the paper's.
SCALES = (0.5, 0.75, 1.25)
VARIANTS = {
    'clipped': {},
    # x + e as the paper prints it
    'unclipped': {'model.clip': False},
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('protocol', choices=PROTOCOLS)
    parser.add_argument('--paper-schedule', action='store_true')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks/dmv_jnd'))
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=SEEDS, help='of the training')
    parser.add_argument(
        '--scales',
        type=float,
        nargs='+',
        default=SCALES,
        help='of the target, for the curve; trained with the first seed')
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        help='test on every N-th image; the result is marked reduced')
    parser.add_argument(
        '--train-every',
        type=int,
        default=1,
        help='measure the training RCA on every N-th image')
    parser.add_argument(
        '--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    return parser.parse_args()


class Benchmark:
    """The trainings and measurements of one protocol."""

    def __init__(self, args) -> None:
        self.args = args
        name = PROTOCOLS[args.protocol]
        if args.paper_schedule:
            name = PAPER_SCHEDULE
        self.config = CONFIGS / name
        self.classifiers = {}
        for i, task in enumerate(Config.fromfile(self.config).model.tasks):
            config = Path(task.config)
            self.classifiers[f'model.tasks.{i}.checkpoint'] = train_config(
                config, args.work_dir / config.stem, amp=True)

    def train(self, variant: str, scale: float,
              seed: int) -> Tuple[Config, str]:
        """Train one DMV-JND; its config for tests, and its checkpoint."""
        work_dir = (
            self.args.work_dir / self.config.stem /
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

    def codec(self, variant: str, seed: int) -> List[Dict]:
        """RCA against bytes, of one DMV-JND."""
        cfg, checkpoint = self.train(variant, 1.0, seed)
        file = Path(cfg.work_dir).parent / 'codec.json'
        if not file.is_file():
            rows = measure_dmv_jnd_codec(
                cfg, checkpoint, every=self.args.every)
            file.write_text(json.dumps(rows))
        return json.loads(file.read_text())

    def rows(self, variant: str, scale: float, seed: int,
             everything: bool) -> List[Dict]:
        """Train and measure one DMV-JND."""
        cfg, checkpoint = self.train(variant, scale, seed)
        file = Path(cfg.work_dir).parent / 'rows.json'
        if file.is_file():
            return json.loads(file.read_text())
        points = [Point()]
        if everything:
            points += [Point(strength=k) for k in HOMOGENEITY]
        points.append(Point('gaussian', seed=seed))
        rows = []
        for split, every in (('test', self.args.every),
                             ('train', self.args.train_every)):
            for row in measure_dmv_jnd(cfg, checkpoint, points, split, every):
                row.update(
                    split=split, variant=variant, scale=scale, seed=seed)
                rows.append(row)
        file.write_text(json.dumps(rows))
        return rows


def main():
    args = parse_args()
    benchmark = Benchmark(args)
    first = args.seeds[0]
    rows = []
    for variant in args.variants:
        for seed in args.seeds:
            rows += benchmark.rows(variant, 1.0, seed, seed == first)
        for scale in args.scales:
            rows += benchmark.rows(variant, scale, first, False)
    publish(
        'dmv_jnd_cifar10',
        dict(
            claim='The classifiers keep their labels on images with a PSNR '
            'of 9.56 dB or less, and lose them to white noise of that power.',
            command='python benchmarks/dmv_jnd.py ' + ' '.join(sys.argv[1:]),
            config=benchmark.config.stem,
            dataset='CIFAR-10',
            reduced=args.protocol == 'reduced' or args.every > 1,
            every=args.every,
            train_every=args.train_every,
            batch_size=Config.fromfile(
                benchmark.config).test_dataloader.batch_size,
            codec=benchmark.codec(args.variants[0], first),
            rows=rows))


if __name__ == '__main__':
    main()
