"""Measure DMV-JND: how well the tasks tolerate it, parts of it, and white
Gaussian noise or controls of its power; RCA against PSNR.

With `--strengths 1`, several checkpoints, e.g. of several
`objective.target_scale`, make one curve.
"""
import argparse
import json
from pathlib import Path

from mmfeatjnd.apis import (
    HOMOGENEITY,
    DMVJNDSetting,
    cli,
    console,
    measure_dmv_jnd,
)
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
        type=cli.positive,
        default=[1.0, *HOMOGENEITY],
        help='times the JND; by default 1, 8/9, ..., 1/9: the homogeneity '
        'test')
    parser.add_argument(
        '--distortions',
        nargs='+',
        choices=PIXEL_DISTORTIONS,
        default=['dmv-jnd', 'gaussian'])
    parser.add_argument(
        '--seeds', type=cli.count, default=1, help='seeds of the noise')
    parser.add_argument(
        '--split',
        choices=['test', 'train'],
        default='test',
        help='whose images; those of training go through the pipeline of the '
        'test')
    parser.add_argument(
        '--every',
        type=cli.count,
        default=1,
        help='only every N-th image of the data set')
    parser.add_argument(
        '--out', required=True, type=Path, help='folder for the results')
    parser.add_argument(
        '--work-dir', help='the dir to save logs; OUT by default')
    cli.add_cfg_options(parser)
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
    with console.plain_errors():
        cfg = cli.open_test(args, args.checkpoints)
        cli.set_out_folder(cfg, args)
        save(measure(cfg, args), args.out)


def measure(cfg, args):
    settings = [
        DMVJNDSetting(distortion, strength, seed)
        for distortion in args.distortions for strength in args.strengths
        for seed in range(
            args.seeds if distortion in RANDOM_DISTORTIONS else 1)
    ]
    one_curve = len(args.checkpoints) == 1 or len(args.strengths) == 1
    rows = []
    names = cli.short_names(args.checkpoints)
    for checkpoint, name in zip(args.checkpoints, names):
        for row in measure_dmv_jnd(cfg, checkpoint, settings, args.split,
                                   args.every):
            series = row['distortion']
            if not one_curve:
                series += f' of {name}'
            rows.append(dict(checkpoint=checkpoint, series=series, **row))
    return rows


def save(rows, out):
    with console.atomic_path(out / 'dmv_jnd.json') as path:
        Path(path).write_text(json.dumps(rows, indent=1))
    with console.atomic_path(out / 'dmv_jnd.md') as path:
        Path(path).write_text(table(rows))
    with console.atomic_path(out / 'dmv_jnd.png') as path:
        plot_rca(rows, path)
    print(f'\n{table(rows)}\nSaved to {out}/dmv_jnd.json, dmv_jnd.md, '
          'dmv_jnd.png')


if __name__ == '__main__':
    main()
