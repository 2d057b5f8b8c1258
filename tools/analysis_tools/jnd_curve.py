"""Measure and draw the task metric against the NRMSE of distortions."""
from functools import partial

from mmfeatjnd.apis import measure_curve
from mmfeatjnd.cli.arguments import curve_parser, positive
from mmfeatjnd.cli.configs import open_curve
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.results import save_results
from mmfeatjnd.evaluation import curve
from mmfeatjnd.functional import DEFINITIONS
from mmfeatjnd.models import distortion_names


def parse_args():
    parser = curve_parser(__doc__)
    parser.add_argument(
        '--distortions',
        nargs='+',
        choices=distortion_names(),
        default=['featjnd', 'gaussian'],
        metavar='NAME',
        help='any of: ' + ', '.join(distortion_names()))
    parser.add_argument(
        '--nrmse',
        nargs='+',
        type=positive,
        default=[0.25, 0.5, 0.75, 1.0, 1.5],
        help='NRMSE of each image and level')
    parser.add_argument(
        '--definition',
        choices=DEFINITIONS,
        default='rms',
        help='denominator of the NRMSE')
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        cfg = open_curve(args)
        rows = measure_curve(cfg, args.checkpoint, args.distortions,
                             args.nrmse, range(args.seeds), args.estimators,
                             args.definition, split=args.split,
                             levels=args.levels)
        save_results(rows, args.out, 'curve',
                     partial(curve.to_markdown, metric=args.metric),
                     {'curve.png': partial(curve.plot, metric=args.metric)},
                     args.metric)


if __name__ == '__main__':
    main()
