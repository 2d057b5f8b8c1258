"""Measure and draw the task metric against the strength of distortions."""
import argparse
import json
from pathlib import Path

from mmfeatjnd import compat  # first: it lets `_base_` reach every host
from mmfeatjnd.apis import cli, console, measure_curve
from mmfeatjnd.apis.cfg_options import CfgOptions
from mmfeatjnd.evaluation import plot, to_markdown
from mmfeatjnd.functional import DEFINITIONS, DISTORTIONS


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='FeatJND config file path')
    parser.add_argument(
        'checkpoint',
        help='checkpoint of host and estimator, or of the host with '
        '--estimators')
    parser.add_argument(
        '--estimators',
        nargs='+',
        default=[],
        help='estimator files, one for each seed')
    parser.add_argument(
        '--distortions',
        nargs='+',
        choices=sorted(DISTORTIONS),
        default=['featjnd', 'gaussian'],
        metavar='NAME',
        help='any of: ' + ', '.join(sorted(DISTORTIONS)))
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
    parser.add_argument(
        '--seeds', type=int, default=3, help='number of seeds')
    parser.add_argument(
        '--metric', help='metric to draw; the first one by default')
    parser.add_argument(
        '--out', required=True, type=Path, help='folder for the results')
    parser.add_argument(
        '--work-dir', help='the dir to save logs; OUT by default')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='override some settings in the used config, the key-value pair '
        'in xxx=yyy format will be merged into config file')
    return parser.parse_args()


def main():
    args = parse_args()
    with console.plain_errors():
        compat.check_environment()
        compat.register_trusted_checkpoint_loader()
        cfg = cli.load_config(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir = args.work_dir or str(args.out)
    rows = measure_curve(cfg, args.checkpoint, args.distortions, args.nrmse,
                         range(args.seeds), args.estimators, args.definition)
    table = to_markdown(rows, args.metric)
    with console.atomic_path(args.out / 'curve.json') as path:
        Path(path).write_text(json.dumps(rows, indent=1))
    with console.atomic_path(args.out / 'curve.md') as path:
        Path(path).write_text(table)
    with console.atomic_path(args.out / 'curve.png') as path:
        plot(rows, path, args.metric)
    print(f'\n{table}\nSaved to {args.out}/curve.json, curve.md, curve.png')


if __name__ == '__main__':
    main()
