"""FeatJND against noise of equal strength and its controls, on real images.

    python benchmarks/featjnd.py cifar10
    python benchmarks/featjnd.py dsb2018

Trains the host and three estimators of each mode (what is done is skipped),
measures the tolerance curve on the test split, and writes
benchmarks/results/featjnd_<set>.json. docs/benchmarks.md says where to get
the data.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List

from common import ROOT, keep_every, publish, train_config, train_estimator
from mmengine.config import Config

from mmfeatjnd.apis import measure_curve
from mmfeatjnd.functional import DISTORTIONS

SEEDS = (0, 1, 2)
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
BENCHMARKS = dict(
    cifar10=dict(
        modes=('signed', 'envelope'),
        amp=True,
        config='resnet18-w32_cifar10.py',
        dataset='CIFAR-10',
        train_split='train, all 50,000 images',
        test_split='test, all 10,000 images'),
    dsb2018=dict(
        modes=('signed', ),
        amp=False,  # mmcv's CPU operators take float32 only
        config='mask-rcnn_r18_dsb2018.py',
        dataset='DSB2018',
        train_split='train, all 440 images',
        test_split='val, all 110 images'))
MODES = dict(
    signed={},
    # the strength is learned: dual ascent holds the discrepancy at 0.05
    envelope={
        'model.neck.estimator.mode': 'envelope',
        'model.objective.strength': None,
        'model.objective.magnitude_weight': 1.0,
        'model.objective.multiplier': 10.0,
        'model.objective.adapt': 0.05,
        'model.objective.tolerance': 0.05
    })


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('benchmark', choices=sorted(BENCHMARKS))
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        help='test on every N-th image; the result is marked reduced')
    parser.add_argument(
        '--strengths', nargs='+', type=float, default=STRENGTHS)
    parser.add_argument('--host', help='use this host checkpoint')
    parser.add_argument(
        '--reduced',
        action='store_true',
        help='mark the result as smaller than the protocol')
    return parser.parse_args()


def curve(args, config: Path, host: str, mode: str, distortions: List[str],
          work_dir: Path) -> List[Dict]:
    """The rows of one mode."""
    file = work_dir / f'rows_{mode}.json'
    if file.is_file():
        return json.loads(file.read_text())
    estimators = [
        train_estimator(config, host, work_dir / f'{mode}_seed{seed}',
                        args.amp, {
                            'randomness.seed': seed,
                            **MODES[mode]
                        }) for seed in SEEDS
    ]
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir / 'test')
    cfg.merge_from_dict(MODES[mode])
    if args.every > 1:
        keep_every(cfg, args.every, work_dir)
    rows = measure_curve(cfg, host, distortions, args.strengths, SEEDS,
                         estimators)
    if mode == 'envelope':
        for row in rows:
            if row['distortion'] != 'clean':
                row['distortion'] += '-envelope'
    file.write_text(json.dumps(rows))
    return rows


def main():
    args = parse_args()
    benchmark = dict(BENCHMARKS[args.benchmark])
    name = benchmark.pop('config')
    config = ROOT / 'configs' / 'featjnd' / name
    work_dir = args.work_dir / args.benchmark
    args.amp = benchmark.pop('amp')
    host = args.host or train_config(ROOT / 'configs' / 'hosts' / name,
                                     work_dir / 'host', args.amp)
    rows = curve(args, config, host, 'signed', list(DISTORTIONS), work_dir)
    if 'envelope' in benchmark.pop('modes'):
        rows += curve(args, config, host, 'envelope', ['featjnd'],
                      work_dir)[1:]  # the first is the clean host again
    command = f'make bench-featjnd-{args.benchmark}'
    if args.every > 1:
        split, _, size = benchmark['test_split'].partition(', all ')
        benchmark['test_split'] = f'{split}, one in {args.every} of {size}'
    if sys.argv[2:]:
        command = 'python benchmarks/featjnd.py ' + ' '.join(sys.argv[1:])
    publish(
        f'featjnd_{args.benchmark}',
        dict(
            claim='At equal NRMSE the FeatJND distortion costs the task less '
            'than Gaussian noise and than its own controls.',
            command=command,
            host=Path(name).stem,
            split_point=Config.fromfile(config).model.neck.get(
                'split', 'backbone'),
            **benchmark,
            clean=rows[0]['metrics'],
            reduced=args.every > 1 or args.reduced,
            rows=rows[1:]))


if __name__ == '__main__':
    main()
