"""FeatJND against noise of equal NRMSE and its controls, on real images.

    python benchmarks/featjnd.py cifar10
    python benchmarks/featjnd.py dsb2018

Trains the host and three estimators of each mode (what is done is skipped),
measures the JND curve on the test split, and writes
benchmarks/results/featjnd_<set>.json. docs/benchmarks.md says where to get
the data.
"""
from typing import Dict, List

from common import SEEDS, CurveBenchmark, benchmark_parser

from mmfeatjnd.apis import measure_curve
from mmfeatjnd.models import distortion_names

# the small ones: Gaussian noise costs 1 % below 0.25
NRMSE = (0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
ENVELOPE = ('cifar10', 'cifar10-full')  # where the envelope is trained, too
MODES = dict(
    signed={},
    # the NRMSE is learned: dual ascent holds the discrepancy at 0.05
    envelope={
        'model.neck.estimator.mode': 'envelope',
        'model.training': dict(type='mmfeatjnd.LearnedNRMSE'),
        'model.objective.magnitude_weight': 1.0,
        'model.objective.multiplier': 10.0,
        'model.objective.adapt': 0.05,
        'model.objective.tolerance': 0.05
    })


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)
    parser.add_argument('--nrmse', nargs='+', type=float, default=NRMSE)
    return parser.parse_args(argv)


def curve(benchmark: CurveBenchmark, mode: str,
          distortions: List[str]) -> List[Dict]:
    """The rows of one mode."""

    def measure(cfg, host, estimators):
        rows = measure_curve(cfg, host, distortions, benchmark.args.nrmse,
                             SEEDS, estimators)
        if mode == 'envelope':
            for row in rows:
                if row['distortion'] != 'clean':
                    row['distortion'] += '-envelope'
        return rows

    return benchmark.measure(
        mode, MODES[mode], measure, distortions=distortions)


def main(argv=None):
    benchmark = CurveBenchmark(parse_args(argv), 'featjnd', dict(nrmse=NRMSE))
    rows = curve(benchmark, 'signed', distortion_names())
    if benchmark.args.benchmark in ENVELOPE:
        rows += curve(benchmark, 'envelope', ['featjnd'])
    benchmark.publish(
        'At equal NRMSE the FeatJND distortion costs the task less than '
        'Gaussian noise and than its own controls.', rows)


if __name__ == '__main__':
    main()
