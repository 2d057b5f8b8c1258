"""Measure the JND of a host: how much noise it takes until it notices.

Noise is put on single tokens, on groups of channels and on whole images of
the test data, and its strength is bisected until the host's answer is so many
nats from the clean one. What estimators predict is compared with that.
"""
import argparse

from mmfeatjnd.apis.measured_jnd import PREDICTORS, JNDMeter, measure_jnd
from mmfeatjnd.cli.arguments import add_out_folder, add_split, count, positive
from mmfeatjnd.cli.configs import open_test, set_out_folder
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.results import save_results
from mmfeatjnd.evaluation.measured_jnd import (
    plot,
    responses,
    scores,
    to_markdown,
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path, of FeatJND')
    parser.add_argument(
        'checkpoint',
        help='checkpoint of host and estimator, or of the host with '
        '--estimator')
    parser.add_argument('--estimator', help='an estimator file')
    add_split(parser)
    parser.add_argument(
        '--images', type=count, default=24,
        help='number of test images, drawn at random')
    parser.add_argument(
        '--tokens', type=count, default=16,
        help='tokens of each image, of all levels together')
    parser.add_argument(
        '--groups', type=count, default=4,
        help='groups of neighbouring channels of each level')
    parser.add_argument(
        '--nats', nargs='+', type=positive, default=[0.01],
        help='tolerances of tokens and groups of channels')
    parser.add_argument(
        '--image-nats', nargs='+', type=positive,
        default=[0.005, 0.01, 0.02, 0.05],
        help='tolerances of whole images')
    parser.add_argument(
        '--predictors', nargs='+', choices=PREDICTORS,
        default=list(PREDICTORS), metavar='NAME',
        help='token maps to compare: ' + ', '.join(PREDICTORS))
    parser.add_argument(
        '--draws', type=count, default=6,
        help='draws of the noise that nats are averaged over')
    parser.add_argument(
        '--rows', type=count, default=16,
        help='copies of an image that run through the host at once')
    parser.add_argument('--seed', type=int, default=0,
                        help='of images, tokens and noise')
    add_out_folder(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        cfg = open_test(args, [args.checkpoint])
        set_out_folder(cfg, args)
        meter = JNDMeter(
            cfg, args.checkpoint, args.estimator, args.predictors,
            args.draws, rows=args.rows, seed=args.seed, split=args.split,
            levels=args.levels)
        images = measure_jnd(
            meter, args.out / 'thresholds.jsonl', args.images,
            tokens=args.tokens, groups=args.groups, nats=args.nats,
            image_nats=args.image_nats)
        save_results(
            [dict(row, seed=args.seed)
             for row in scores(images) + responses(images)], args.out,
            'measured_jnd', to_markdown,
            {'measured_jnd.png': lambda _, path: plot(images, path)})


if __name__ == '__main__':
    main()
