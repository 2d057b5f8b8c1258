"""Measure and draw the task metric against the NRMSE of distortions."""
from functools import partial

from mmfeatjnd.apis import measure_curve
from mmfeatjnd.cli.arguments import curve_parser, parse_launched, positive
from mmfeatjnd.cli.configs import open_curve
from mmfeatjnd.cli.console import UsageError, plain_errors
from mmfeatjnd.cli.launch import distributed
from mmfeatjnd.cli.results import save_results
from mmfeatjnd.evaluation import curve
from mmfeatjnd.models import build_distortion, distortion_names
from mmfeatjnd.models.operations.perturbation import STRENGTHS
from mmfeatjnd.utils import on_first_rank


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
        choices=STRENGTHS,
        default='rms',
        help="denominator of the NRMSE; 'visible': of what the rest of the "
        "host sees, which needs --task-metric; 'channel': one strength for "
        "all levels, in units of the channels' standard deviations, which the "
        'estimator knows')
    parser.add_argument(
        '--valid',
        action='store_true',
        help='keep the features in the range that the estimator has seen')
    parser.add_argument(
        '--task-metric',
        metavar='FILE',
        help='file of tools/estimate_metric.py for this host and split, for '
        "--definition visible and the distortions 'closed-form' and "
        "'null-space'")
    return parse_launched(parser)


def check_task_metric(args):
    """Before anything is loaded: whether the file is there that is needed."""
    asked = [n for n in args.distortions
             if build_distortion(n).metric == 'task']
    asked += ['--definition visible'] * (args.definition == 'visible')
    if asked and args.task_metric is None:
        raise UsageError(f'{asked[0]} needs --task-metric FILE: make one with '
                         'tools/estimate_metric.py for this host and split')


def main():
    args = parse_args()
    with plain_errors():
        check_task_metric(args)
        cfg = open_curve(args)
        with distributed(cfg):
            rows = measure_curve(
                cfg, args.checkpoint, args.distortions, args.nrmse,
                range(args.seeds), args.estimators, args.definition,
                split=args.split, levels=args.levels, valid=args.valid,
                nats=args.nats, draws=args.draws,
                task_metric=args.task_metric)
            on_first_rank(lambda: save_results(
                rows, args.out, 'curve',
                partial(curve.to_markdown, metric=args.metric),
                {'curve.png': partial(curve.plot, metric=args.metric)},
                args.metric))


if __name__ == '__main__':
    main()
