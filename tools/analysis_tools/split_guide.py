"""Compare splits of a host: what of them is seen, and what they cost."""
import argparse
import json
from pathlib import Path

from mmfeatjnd.apis.split_guide import guide_table, guide_to_splits
from mmfeatjnd.cli.arguments import count
from mmfeatjnd.cli.configs import open_training
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.options import add_cfg_options
from mmfeatjnd.utils import atomic_path, check_writable


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path of a stock host')
    parser.add_argument('checkpoint', help='checkpoint of the host')
    parser.add_argument(
        '--splits',
        nargs='+',
        required=True,
        help='split points, e.g. backbone neck backbone.layer3')
    parser.add_argument(
        '--images',
        type=count,
        default=64,
        help='number of training pictures, drawn at random')
    parser.add_argument(
        '--draws',
        type=count,
        default=2,
        help='draws of the gradient for each picture')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the choice of pictures, and of the draws')
    parser.add_argument('--out', help='JSON file for the rows')
    parser.add_argument(
        '--work-dir',
        help='folder of the log; by default `work_dir` of the config, else '
        './work_dirs/<config name>')
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        if args.out:
            check_writable(args.out)
        cfg = open_training(args)
        rows = guide_to_splits(cfg, args.checkpoint, args.splits, args.images,
                               args.draws, args.seed)
        print(f'\n\n{guide_table(rows)}')
        if args.out:
            with atomic_path(args.out) as path:
                Path(path).write_text(json.dumps(rows, indent=1))
            print(f'Saved to {args.out}')


if __name__ == '__main__':
    main()
