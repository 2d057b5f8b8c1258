"""Where noise costs the least: the learned map, its controls, and the signed
map of the FeatJND paper, on real images.

    python benchmarks/featjnd.py yolox
    python benchmarks/featjnd.py mobilenet
    python benchmarks/featjnd.py cifar10
    python benchmarks/featjnd.py dsb2018

Trains the host, unless its weights are given, and three estimators (what is
done is skipped), measures the task metric and the distance of the answer in
nats on all test images, and writes benchmarks/results/featjnd_<set>.json.
docs/benchmarks.md says where to get the data.
"""
from typing import List

from common import (
    BENCHMARKS,
    CONFIGS,
    SEEDS,
    CurveBenchmark,
    benchmark_parser,
    read_config,
)

from mmfeatjnd.apis.curve import OperationTest
from mmfeatjnd.evaluation.comparison import (
    compare,
    gain_in_octaves,
    volume_at_nats,
)
from mmfeatjnd.models import Perturbation
from mmfeatjnd.utils import config_library

#: RMS of the noise in units of the channels' standard deviation, by whether
#: the host is a detector, and that of noise that keeps features valid.
NRMSE = {True: (0.5, 1.0, 2.0, 3.0, 4.0, 8.0),
         False: (0.125, 0.25, 0.5, 1.0, 2.0)}
VALID_NRMSE = {True: (1.0, 2.0, 4.0), False: (0.25, 0.5)}
#: Maps that know less of the image than the learned one.
CONTROLS = ('level-gain', 'static', 'other-image', 'permuted')
MAIN = ('gaussian', *CONTROLS, 'featjnd')
#: Measured with one estimator and one seed.
ONCE = ('fisher', 'feature-energy', 'gradient-sensitivity')
#: By a metric instead of a map, of one seed: what nobody sees, and noise of
#: the inverse of what is seen, by the readers' weights and by the task.
BY_METRIC = ('null-space', 'lateral', 'closed-form')
#: NRMSE of what the rest of the host sees.
VISIBLE_NRMSE = {True: (1.0, 1.5), False: (0.25, 0.5, 1.0)}
VISIBLE = ('gaussian', 'featjnd', 'lateral', 'closed-form')
#: The paper's map, and one tensor for all images in its place.
SIGNED = {
    'featjnd-signed': {
        'model.neck.estimator.mode': 'signed'
    },
    'static-learned': {
        'model.neck.estimator.mode': 'signed',
        'model.neck.estimator.type': 'mmfeatjnd.StaticEstimator'
    }
}
SIGNED_NRMSE = (0.5, 1.0, 1.5)
SIGNED_CONTROLS = ('gaussian', 'permuted', 'channel-shuffled',
                   'sign-flipped', 'shrinkage')
NATS = 0.02
DRAWS = 200


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        '--nrmse', nargs='+', type=float, help='by default that of the host')
    parser.add_argument('--valid-nrmse', nargs='*', type=float)
    parser.add_argument(
        '--no-signed',
        action='store_true',
        help='leave out the signed map; the result is marked reduced')
    parser.add_argument(
        '--no-metric',
        action='store_true',
        help='leave out noise by the task metric, likewise')
    args = parser.parse_args(argv)
    cfg = read_config(CONFIGS / BENCHMARKS[args.benchmark]['featjnd'])
    args.detector = config_library(cfg) == 'mmdet'
    args.nrmse = args.nrmse or NRMSE[args.detector]
    if args.valid_nrmse is None:
        args.valid_nrmse = VALID_NRMSE[args.detector]
    return args


def settings(args) -> List[dict]:
    """Arguments of the perturbations of the token maps."""
    once = [*ONCE, *['outside-boxes'] * args.detector]
    asked = [(name, nrmse, False, seed) for nrmse in args.nrmse
             for seed in SEEDS for name in (*MAIN, *once)
             if seed == SEEDS[0] or name in MAIN]
    asked += [(name, nrmse, True, seed) for nrmse in args.valid_nrmse
              for seed in SEEDS for name in MAIN]
    return [
        dict(
            distortion=name,
            nrmse=nrmse,
            definition='channel',
            valid=valid,
            seed=seed) for name, nrmse, valid, seed in asked
    ]


def metric_settings(args, metric: str) -> List[dict]:
    """Those of the perturbations that need the task metric of the split."""
    asked = [(name, nrmse, 'channel') for nrmse in args.nrmse
             for name in BY_METRIC]
    asked += [(name, nrmse, 'visible')
              for nrmse in VISIBLE_NRMSE[args.detector] for name in VISIBLE]
    return [
        dict(
            distortion=name,
            nrmse=nrmse,
            definition=definition,
            seed=SEEDS[0],
            task_metric=metric) for name, nrmse, definition in asked
    ]


def signed_settings(mode: str) -> List[dict]:
    """The same of the signed map, and of what is compared with it."""
    names = ['featjnd', *SIGNED_CONTROLS] if mode == 'featjnd-signed' else \
        ['featjnd']
    return [
        dict(
            distortion=name,
            nrmse=nrmse,
            definition='rms',
            valid=valid,
            seed=seed) for nrmse in SIGNED_NRMSE for valid in (False, True)
        for seed in SEEDS for name in names
    ]


def measure(cfg, host: str, estimators: List[str],
            asked: List[dict]) -> List[dict]:
    """The rows of the clean host and of the perturbations."""
    test = OperationTest(cfg, host, estimators)
    rows = test.measure(
        [(SEEDS.index(setting['seed']), Perturbation(**setting))
         for setting in asked],
        nats=True,
        draws=DRAWS)
    rows[0] = dict(
        distortion='clean',
        nrmse=0.0,
        nrmse_measured=0.0,
        participation_ratio=0.0,
        seed=0,
        **rows[0])
    return rows


def comparisons(rows: List[dict]) -> dict:
    """What the rows say of the learned map, with intervals."""
    clean = next(r for r in rows if r['distortion'] == 'clean')
    result = {
        metric: compare(rows, metric, controls=CONTROLS)
        for metric in [*clean['draws'], 'kl']
    }
    result['octaves_at_nats'] = [
        dict(
            nats=NATS,
            valid=valid,
            distortion=name,
            against='gaussian',
            octaves=gain_in_octaves(
                rows, name, 'gaussian', NATS, valid=valid))
        for valid in (False, True)
        for name in (*CONTROLS, 'featjnd', *ONCE, *BY_METRIC)
    ]
    result['volume_at_nats'] = [
        dict(
            nats=NATS,
            valid=False,
            distortion=name,
            bits=volume_at_nats(rows, name, NATS))
        for name in (*MAIN, *ONCE)
    ]
    return result


def main(argv=None):
    args = parse_args(argv)
    benchmark = CurveBenchmark(
        args, 'featjnd',
        dict(
            nrmse=NRMSE[args.detector],
            valid_nrmse=VALID_NRMSE[args.detector]))
    rows = benchmark.measure_parts('featjnd', {}, settings(args), measure)
    if not args.no_metric:
        rows += benchmark.measure_parts(
            'metric', {}, metric_settings(args, benchmark.task_metric()),
            measure, estimators='featjnd')[1:]
    compared = comparisons(rows)
    benchmark.complete &= not (args.no_signed or args.no_metric)
    if not args.no_signed:
        for mode, options in SIGNED.items():
            found = benchmark.measure_parts(mode, options,
                                            signed_settings(mode), measure)
            rows += [
                dict(row, distortion=mode)
                if row['distortion'] == 'featjnd' else row
                for row in found[1:]
            ]
    for row in rows:
        row.pop('draws', None)
    benchmark.publish(
        'Noise shared out among tokens by the learned map costs the task at '
        'most half of what it costs by the best map that does not know the '
        'image.', rows, comparisons=compared)


if __name__ == '__main__':
    main()
