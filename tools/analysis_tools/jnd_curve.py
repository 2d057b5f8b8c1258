"""Measure and draw the task metric against the strength of distortions."""
import argparse
import json
import os
import tempfile
from pathlib import Path

from mmengine.config import Config, DictAction

from mmfeatjnd.apis import measure_curve
from mmfeatjnd.compat import (check_environment,
                              register_trusted_checkpoint_loader)
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
        action=DictAction,
        help='override some settings in the used config, the key-value pair '
        'in xxx=yyy format will be merged into config file')
    return parser.parse_args()


def main():
    args = parse_args()
    check_environment()
    register_trusted_checkpoint_loader()
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir or str(args.out)
    rows = measure_curve(cfg, args.checkpoint, args.distortions, args.nrmse,
                         range(args.seeds), args.estimators, args.definition)
    args.out.mkdir(parents=True, exist_ok=True)
    # written aside and renamed, so that a curve is there whole or not at all
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        new = Path(folder)
        (new / 'curve.json').write_text(json.dumps(rows, indent=1))
        (new / 'curve.md').write_text(to_markdown(rows, args.metric))
        plot(rows, new / 'curve.png', args.metric)
        for file in sorted(new.iterdir()):
            os.replace(file, args.out / file.name)
    print(to_markdown(rows, args.metric))
    print(f'Saved to {args.out}/curve.json, curve.md and curve.png')


if __name__ == '__main__':
    main()
