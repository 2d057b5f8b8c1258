"""Token-wise quantization against its baselines, on real images.

    python benchmarks/quantization.py cifar10
    python benchmarks/quantization.py dsb2018

Trains the host (shared with benchmarks/featjnd.py) and three estimators (what
is done is skipped), measures the task metric at several rates and noise
budgets on the test split, and writes benchmarks/results/quantization_<set>
.json. docs/benchmarks.md says where to get the data.
"""
import argparse
import json
import sys
from pathlib import Path

from common import ROOT, keep_every, publish, train_config, train_estimator
from featjnd import BENCHMARKS, SEEDS
from mmengine.config import Config

from mmfeatjnd.apis import measure_rates

BITS = (0.4, 0.5, 0.6, 0.7, 0.85, 1.1)
NOISE_BUDGETS = (0.3, 0.45, 0.6)
POLICIES = {
    'featjnd': 'featjnd',
    'featjnd-token': dict(type='featjnd', granularity='token'),
    'featjnd-channel': dict(type='featjnd', granularity='channel'),
    'permuted': 'permuted',
    'uniform': 'uniform',
    'range': 'range',
    'gradient': 'gradient',
    'water-filling': 'water-filling',
    'clip-uniform': 'clip-uniform',
    'clip-uniform-6': dict(type='clip-uniform', levels=6),
}


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
        '--policies', nargs='+', choices=POLICIES, default=list(POLICIES))
    parser.add_argument('--bits', nargs='+', type=float, default=BITS)
    parser.add_argument(
        '--noise-budgets', nargs='+', type=float, default=NOISE_BUDGETS)
    parser.add_argument('--host', help='use this host checkpoint')
    parser.add_argument(
        '--reduced',
        action='store_true',
        help='mark the result as smaller than the protocol')
    return parser.parse_args()


def main():
    args = parse_args()
    benchmark = dict(BENCHMARKS[args.benchmark])
    benchmark.pop('modes')
    name, amp = benchmark.pop('config'), benchmark.pop('amp')
    config = ROOT / 'configs' / 'quantization' / name
    work_dir = args.work_dir / args.benchmark
    host = args.host or train_config(ROOT / 'configs' / 'hosts' / name,
                                     work_dir / 'host', amp)
    estimators = [
        train_estimator(config, host, work_dir / f'quantization_seed{seed}',
                        amp, {'randomness.seed': seed}) for seed in SEEDS
    ]
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir / 'test')
    if args.every > 1:
        keep_every(cfg, args.every, work_dir)
        split, _, size = benchmark['test_split'].partition(', all ')
        benchmark['test_split'] = f'{split}, one in {args.every} of {size}'
    file = work_dir / 'rows_quantization.json'
    if file.is_file():
        rows = json.loads(file.read_text())
    else:
        policies = {name: POLICIES[name] for name in args.policies}
        rows = measure_rates(cfg, host, policies, args.bits,
                             args.noise_budgets, SEEDS, estimators)
        file.write_text(json.dumps(rows))
    command = f'make bench-quantization-{args.benchmark}'
    if sys.argv[2:]:
        command = 'python benchmarks/quantization.py ' + ' '.join(sys.argv[1:])
    publish(
        f'quantization_{args.benchmark}',
        dict(
            claim='At equal noise, steps from FeatJND cost the task less than '
            'the same steps permuted and than one step; at a relative loss of '
            '1 % they need at least 20 % fewer coded bits than one step, with '
            'and without clipping.',
            command=command,
            host=Path(name).stem,
            split_point=cfg.model.neck.get('split', 'backbone'),
            **benchmark,
            clean=rows[0]['metrics'],
            reduced=args.every > 1 or args.reduced,
            rows=rows[1:]))


if __name__ == '__main__':
    main()
