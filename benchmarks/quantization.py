"""Token-wise quantization against its baselines, on real images.

    python benchmarks/quantization.py cifar10
    python benchmarks/quantization.py dsb2018

Trains the host (shared with benchmarks/featjnd.py) and three estimators (what
is done is skipped), measures the task metric at several rates and noise
budgets on the test split, and writes benchmarks/results/quantization_<set>
.json. docs/benchmarks.md says where to get the data.
"""
from common import SEEDS, CurveBenchmark, benchmark_parser

from mmfeatjnd.apis import measure_rates

MEAN_BITS = (0.4, 0.5, 0.6, 0.7, 0.85, 1.1)
NOISE_BUDGETS = (0.3, 0.45, 0.6)
POLICIES = {
    'featjnd': 'featjnd',
    'featjnd-token': dict(type='featjnd', granularity='token'),
    'featjnd-channel': dict(type='featjnd', granularity='channel'),
    'permuted-steps': 'permuted-steps',
    'one-step': 'one-step',
    'range': 'range',
    'gradient': 'gradient',
    'water-filling': 'water-filling',
    # a range is never wider than the features, so many bins cannot take few
    # bits: of the numbers of bins, the best counts
    'clip-uniform-2': dict(type='clip-uniform', bins=2),
    'clip-uniform-3': dict(type='clip-uniform', bins=3),
    'clip-uniform': 'clip-uniform',
    'clip-uniform-6': dict(type='clip-uniform', bins=6),
    'clip-uniform-8': dict(type='clip-uniform', bins=8),
}


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        '--policies', nargs='+', choices=POLICIES, default=list(POLICIES))
    parser.add_argument(
        '--mean-bits', nargs='+', type=float, default=MEAN_BITS)
    parser.add_argument(
        '--noise-budgets', nargs='+', type=float, default=NOISE_BUDGETS)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    benchmark = CurveBenchmark(
        args, 'quantization',
        dict(
            policies=POLICIES,
            mean_bits=MEAN_BITS,
            noise_budgets=NOISE_BUDGETS))
    policies = {name: POLICIES[name] for name in args.policies}

    def measure(cfg, host, estimators):
        return measure_rates(cfg, host, policies, args.mean_bits,
                             args.noise_budgets, SEEDS, estimators)

    benchmark.publish(
        'At equal noise, steps from FeatJND cost the task less than the same '
        'steps permuted and than one step; at a relative loss of 1 % they '
        'need at least 20 % fewer coded bits than one step, with and without '
        'clipping.',
        benchmark.measure('quantization', {}, measure, defined=policies))


if __name__ == '__main__':
    main()
