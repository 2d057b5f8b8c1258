"""Draw attention, JND, original and distorted images over the training, as
Fig. 8 of the DMV-JND paper: one column a checkpoint."""
import argparse
from pathlib import Path

import torch

from mmfeatjnd.apis import dmv_jnd_runner
from mmfeatjnd.cli.configs import open_test, short_names
from mmfeatjnd.cli.console import UsageError, plain_errors
from mmfeatjnd.cli.options import add_cfg_options
from mmfeatjnd.cli.results import check_suffix
from mmfeatjnd.utils import atomic_path, check_writable
from mmfeatjnd.visualization import draw_training


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='DMV-JND config file path')
    parser.add_argument(
        'checkpoints', nargs='+', help='checkpoints, in the order of epochs')
    parser.add_argument(
        '--images',
        nargs='+',
        type=int,
        default=[0],
        help='indices in the test set; the first is 0')
    parser.add_argument(
        '--out', required=True, type=Path, help='the picture to write')
    parser.add_argument(
        '--work-dir', help='the dir to save logs; that of OUT by default')
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        check_suffix(
            str(args.out), ('.png', '.pdf', '.svg'), 'pictures')
        check_writable(args.out)
        draw(open_test(args, args.checkpoints), args)


@torch.no_grad()
def draw(cfg, args):
    cfg.work_dir = args.work_dir or str(args.out.parent)
    cfg.test_dataloader.dataset.indices = args.images
    cfg.test_dataloader.batch_size = 1
    stages = {}
    titles = short_names(args.checkpoints)
    for checkpoint, title in zip(args.checkpoints, titles):
        runner, model = dmv_jnd_runner(cfg, checkpoint)
        try:
            loader = runner.build_dataloader(cfg.test_dataloader)
        except IndexError as error:
            raise UsageError(
                f'--images {" ".join(map(str, args.images))}: the test set '
                f'has no such image ({error})') from error
        batches = (model.data_preprocessor(x, False) for x in loader)
        stages[title] = [
            found for data in batches for _, found in model.estimate_batch(
                data['inputs'], data['data_samples'])
        ]
    with atomic_path(args.out) as path:
        draw_training(stages, path)
    print(f'Saved to {args.out}')


if __name__ == '__main__':
    main()
