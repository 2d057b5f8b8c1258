"""Token-wise quantization against its baselines, on real images.

    python benchmarks/quantization.py yolox
    python benchmarks/quantization.py dsb2018

Trains the host and three estimators, both shared with benchmarks/featjnd.py
(what is done is skipped), measures the task metric at several rates and noise
budgets on the test split, one policy after the other (what is measured is kept
and not measured again), and writes benchmarks/results/quantization_<set>.json.
docs/benchmarks.md says where to get the data.
"""
from common import SEEDS, CurveBenchmark, benchmark_parser, clean_of

from mmfeatjnd.apis import measure_rates

MEAN_BITS = (0.4, 0.55, 0.7, 0.85, 1.1, 1.5)
NOISE_BUDGETS = (0.3, 0.45, 0.6)
POLICIES = {
    'featjnd': 'featjnd',
    'permuted-steps': 'permuted-steps',
    'one-step': 'one-step',
    # the same with another map
    'token-map-white': dict(type='token-map', map='white'),
    'token-map-level-gain': dict(type='token-map', map='level-gain'),
    'token-map-static': dict(type='token-map', map='static'),
    'token-map-fisher': dict(type='token-map', map='fisher'),
    # twice the JND, not its root
    'featjnd-1.0': dict(type='featjnd', power=1.0),
    'range': 'range',
    'gradient': 'gradient',
    'water-filling': 'water-filling',
    # a range is never wider than the features, so many bins cannot take few
    # bits: of the numbers of bins, the best counts
    'clip-uniform-2': dict(type='clip-uniform', bins=2),
    'clip-uniform-3': dict(type='clip-uniform', bins=3),
    'clip-uniform': 'clip-uniform',
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
    rows = []
    for name in args.policies:
        policy = {name: POLICIES[name]}

        def measure(cfg, host, estimators):
            return measure_rates(cfg, host, policy, args.mean_bits,
                                 args.noise_budgets, SEEDS, estimators)

        found = benchmark.measure(
            f'quantization_{name}', measure, defined=policy,
            mean_bits=list(args.mean_bits),
            noise_budgets=list(args.noise_budgets))
        rows += found if not rows else found[1:]
        clean_of([*rows[:1], *found[:1]])
    benchmark.publish(
        'At equal noise, steps from the learned map cost the task less than '
        'the same steps permuted, than those of the mean map of the training '
        'and than one step; at a relative loss of 2 % they need at least 20 % '
        'fewer coded bits than one step on detectors with masks.', rows)


if __name__ == '__main__':
    main()
