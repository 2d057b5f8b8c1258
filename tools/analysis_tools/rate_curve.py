"""Measure and draw the task metric against bits, for several step policies."""
import argparse
import json
from pathlib import Path

from mmfeatjnd.apis import cli, console, measure_rates
from mmfeatjnd.apis.cfg_options import CfgOptions
from mmfeatjnd.apis.data import SPLITS
from mmfeatjnd.apis.rate import name_policies
from mmfeatjnd.evaluation import rate
from mmfeatjnd.models import Quantization

POLICIES = ['featjnd', 'permuted-steps', 'one-step', 'clip-uniform']


def policy(text):
    """A name, or a dict as in a config."""
    hint = 'Give a name, or a dict such as ' \
        "\"dict(type='featjnd',granularity='token')\"."
    value = text
    if '(' in text or '{' in text:
        try:
            value = CfgOptions._parse_iterable(text)
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
    parser = cli.curve_parser(__doc__)
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
        type=cli.positive,
        default=[0.25, 0.5, 1.0, 2.0],
        help='bits per element of the data set to aim at, before side '
        'information')
    parser.add_argument(
        '--noise-budgets',
        nargs='*',
        type=cli.positive,
        default=[],
        help='also compare at equal noise: NRMSE of each image and level')
    parser.add_argument(
        '--calibration-images',
        type=cli.count,
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
    args = parser.parse_args()
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
    with console.plain_errors():
        cfg = cli.open_curve(args)
        rows = measure_rates(cfg, args.checkpoint, args.policies,
                             args.mean_bits, args.noise_budgets,
                             range(args.seeds), args.estimators,
                             args.calibration_images, args.calibration_split,
                             not args.no_coded)
    # first what took the time: a wrong --metric must not lose it
    with console.atomic_path(args.out / 'rates.json') as path:
        Path(path).write_text(json.dumps(rows, indent=1))
    saved = ['rates.json', 'rates.md']
    with console.plain_errors():
        cli.check_metric(args.metric, rows, args.out / 'rates.json')
    table = rate.to_markdown(rows, args.metric)
    with console.atomic_path(args.out / 'rates.md') as path:
        Path(path).write_text(table)
    for name, draw, wanted in (('rates.png', rate.plot, args.mean_bits),
                               ('noise.png', rate.plot_noise,
                                args.noise_budgets)):
        if wanted:
            with console.atomic_path(args.out / name) as path:
                draw(rows, path, args.metric)
            saved.append(name)
    print(f'\n{table}\nSaved to {args.out}/' + ', '.join(saved))


if __name__ == '__main__':
    main()
