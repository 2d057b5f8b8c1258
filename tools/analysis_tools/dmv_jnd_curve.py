"""Measure DMV-JND: how well the tasks tolerate it, parts of it, and white
Gaussian noise or controls of its power; RCA against PSNR.

With `--strengths 1`, several checkpoints, e.g. of several
`objective.target_scale`, make one curve.
"""
import argparse

from mmfeatjnd.apis import HOMOGENEITY, DMVJNDSetting, measure_dmv_jnd
from mmfeatjnd.cli.arguments import add_out_folder, count, positive
from mmfeatjnd.cli.configs import open_test, set_out_folder, short_names
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.results import save_results
from mmfeatjnd.evaluation import plot_rca
from mmfeatjnd.functional.pixel_noise import (
    PIXEL_DISTORTIONS,
    RANDOM_DISTORTIONS,
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='DMV-JND config file path')
    parser.add_argument('checkpoints', nargs='+', help='DMV-JND checkpoints')
    parser.add_argument(
        '--strengths',
        nargs='+',
        type=positive,
        default=[1.0, *HOMOGENEITY],
        help='times the JND; by default 1, 8/9, ..., 1/9: the homogeneity '
        'test')
    parser.add_argument(
        '--distortions',
        nargs='+',
        choices=PIXEL_DISTORTIONS,
        default=['dmv-jnd', 'gaussian'])
    parser.add_argument(
        '--seeds', type=count, default=1, help='seeds of the noise')
    parser.add_argument(
        '--split',
        choices=['test', 'train'],
        default='test',
        help='whose images; those of training go through the pipeline of the '
        'test')
    parser.add_argument(
        '--every',
        type=count,
        default=1,
        help='only every N-th image of the data set')
    add_out_folder(parser)
    return parser.parse_args()


def table(rows):
    lines = ['| checkpoint | distortion | strength | RCA (%) | PSNR (dB) |',
             '|---|---|---|---|---|']
    for row in rows:
        metrics = row['metrics']
        lines.append(f'| {row["checkpoint"]} | {row["distortion"]} | '
                     f'{row["strength"]:.3g} | {metrics["rca/mean"]:.2f} | '
                     f'{metrics["psnr"]:.2f} |')
    return '\n'.join(lines) + '\n'


def main():
    args = parse_args()
    with plain_errors():
        cfg = open_test(args, args.checkpoints)
        set_out_folder(cfg, args)
        save_results(
            measure(cfg, args), args.out, 'dmv_jnd', table,
            {'dmv_jnd.png': plot_rca})


def measure(cfg, args):
    settings = [
        DMVJNDSetting(distortion, strength, seed)
        for distortion in args.distortions for strength in args.strengths
        for seed in range(
            args.seeds if distortion in RANDOM_DISTORTIONS else 1)
    ]
    one_curve = len(args.checkpoints) == 1 or len(args.strengths) == 1
    rows = []
    names = short_names(args.checkpoints)
    for checkpoint, name in zip(args.checkpoints, names):
        for row in measure_dmv_jnd(cfg, checkpoint, settings, args.split,
                                   args.every):
            series = row['distortion']
            if not one_curve:
                series += f' of {name}'
            rows.append(dict(checkpoint=checkpoint, series=series, **row))
    return rows


if __name__ == '__main__':
    main()
