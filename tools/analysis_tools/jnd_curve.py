"""Measure and draw the task metric against the strength of distortions."""
import json
from pathlib import Path

from mmfeatjnd.apis import cli, console, measure_curve
from mmfeatjnd.evaluation import curve
from mmfeatjnd.functional import DEFINITIONS
from mmfeatjnd.models import distortion_names


def parse_args():
    parser = cli.curve_parser(__doc__)
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
        type=float,
        default=[0.25, 0.5, 0.75, 1.0, 1.5],
        help='strengths of each image and level')
    parser.add_argument(
        '--definition',
        choices=DEFINITIONS,
        default='rms',
        help='denominator of the NRMSE')
    return parser.parse_args()


def main():
    args = parse_args()
    with console.plain_errors():
        cfg = cli.open_curve(args)
        rows = measure_curve(cfg, args.checkpoint, args.distortions,
                             args.nrmse, range(args.seeds), args.estimators,
                             args.definition)
    # first what took the time: a wrong --metric must not lose it
    with console.atomic_path(args.out / 'curve.json') as path:
        Path(path).write_text(json.dumps(rows, indent=1))
    with console.plain_errors():
        cli.check_metric(args.metric, rows, args.out / 'curve.json')
    table = curve.to_markdown(rows, args.metric)
    with console.atomic_path(args.out / 'curve.md') as path:
        Path(path).write_text(table)
    with console.atomic_path(args.out / 'curve.png') as path:
        curve.plot(rows, path, args.metric)
    print(f'\n{table}\nSaved to {args.out}/curve.json, curve.md, curve.png')


if __name__ == '__main__':
    main()
