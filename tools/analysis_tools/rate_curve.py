"""Measure and draw the task metric against bits, for several step policies."""
import argparse
from functools import partial

from mmfeatjnd.apis import measure_rates
from mmfeatjnd.apis.data import SPLITS
from mmfeatjnd.apis.rate import name_policies
from mmfeatjnd.cli.arguments import (
    count,
    curve_parser,
    parse_launched,
    positive,
)
from mmfeatjnd.cli.configs import open_curve
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.launch import distributed
from mmfeatjnd.cli.results import save_results
from mmfeatjnd.evaluation import rate
from mmfeatjnd.models import Quantization
from mmfeatjnd.utils import on_first_rank, read_literal

POLICIES = ['featjnd', 'permuted-steps', 'one-step', 'clip-uniform']


def policy(text):
    """A name, or a dict as in a config."""
    hint = 'Give a name, or a dict such as ' \
        "\"dict(type='featjnd',granularity='token')\"."
    value = text
    if '(' in text or '{' in text:
        try:
            value = read_literal(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise argparse.ArgumentTypeError(f'cannot read {text!r}. {hint}')
    try:
        Quantization(value)  # whether there is such a policy
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f'{error}. {hint}') from error
    return value


def parse_args():
    parser = curve_parser(__doc__)
    parser.add_argument(
        '--policies',
        nargs='+',
        type=policy,
        default=POLICIES,
        metavar='POLICY',
        help='names of step policies, or dicts such as '
        "\"dict(type='featjnd',granularity='token')\"; by default "
        + ' '.join(POLICIES))
    parser.add_argument(
        '--mean-bits',
        nargs='*',
        type=positive,
        default=[0.25, 0.5, 1.0, 2.0],
        help='bits per element of the data set to aim at, before side '
        'information')
    parser.add_argument(
        '--noise-budgets',
        nargs='*',
        type=positive,
        default=[],
        help='also compare at equal noise: NRMSE of each image and level')
    parser.add_argument(
        '--calibration-images',
        type=count,
        default=64,
        help='how many images the scale of the steps is found on, drawn at '
        'random')
    parser.add_argument(
        '--calibration-split',
        choices=SPLITS,
        default='train',
        help='whose images these are; they go through the pipeline of the '
        'test')
    parser.add_argument(
        '--no-coded',
        action='store_true',
        help='write no bitstreams, which take seconds for an image of the '
        'size of COCO\'s: the rate is that of the entropy model, without '
        'side information')
    args = parse_launched(parser)
    if not args.mean_bits and not args.noise_budgets:
        parser.error('give --mean-bits or --noise-budgets')
    if args.estimators and len(args.estimators) != args.seeds:
        parser.error(f'{len(args.estimators)} --estimators for --seeds '
                     f'{args.seeds}: give one for each')
    try:
        args.policies = name_policies(args.policies)
    except ValueError as error:
        parser.error(f'--policies: {error}')
    return args


def main():
    args = parse_args()
    with plain_errors():
        cfg = open_curve(args)
        pictures = {}
        if args.mean_bits:
            pictures['rates.png'] = partial(rate.plot, metric=args.metric)
        if args.noise_budgets:
            pictures['noise.png'] = partial(
                rate.plot_noise, metric=args.metric)
        with distributed(cfg):
            rows = measure_rates(
                cfg, args.checkpoint, args.policies, args.mean_bits,
                args.noise_budgets, range(args.seeds), args.estimators,
                args.calibration_images, args.calibration_split,
                not args.no_coded, split=args.split, levels=args.levels,
                nats=args.nats, draws=args.draws)
            on_first_rank(lambda: save_results(
                rows, args.out, 'rates',
                partial(rate.to_markdown, metric=args.metric), pictures,
                args.metric))


if __name__ == '__main__':
    main()
