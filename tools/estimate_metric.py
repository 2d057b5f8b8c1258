"""Estimate the task metric of a split: what noise on its features costs."""
import argparse

from mmfeatjnd.apis.metric import estimate_metric, metric_table
from mmfeatjnd.cli.arguments import add_split, block, count
from mmfeatjnd.cli.configs import open_training
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.options import add_cfg_options
from mmfeatjnd.models.metric_file import save_metric
from mmfeatjnd.utils import check_writable


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='config file path, of FeatJND or of a stock host')
    parser.add_argument('checkpoint', help='checkpoint of the host')
    add_split(parser)
    parser.add_argument(
        '--images',
        type=count,
        default=256,
        help='number of training pictures, drawn at random; they go through '
        'the pipeline of the test, and their annotations are not used')
    parser.add_argument(
        '--draws',
        type=count,
        default=2,
        help='draws of the gradient for each picture')
    parser.add_argument(
        '--block',
        type=block,
        help="side of the blocks of a DCT, in tokens, or 'auto': moments by "
        'frequency, too')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the choice of pictures, and of the draws')
    parser.add_argument(
        '--out',
        required=True,
        help='file for the metric, of the safetensors format')
    parser.add_argument(
        '--work-dir',
        help='folder of the log; by default `work_dir` of the config, else '
        './work_dirs/<config name>')
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        check_writable(args.out)
        cfg = open_training(args)
        metric = estimate_metric(
            cfg, args.checkpoint, args.images, args.draws, args.split,
            args.levels, args.block, args.seed)
        save_metric(metric, args.out)
        print(f"\n\nsplit='{metric.split}', {metric.images} pictures, "
              f'{metric.draws} draws\n\n{metric_table(metric)}\n'
              f'Saved to {args.out}')


if __name__ == '__main__':
    main()
