"""Make the plan of a feature codec, of unlabelled training pictures.

Nothing is trained: in which components features are coded, how they are
spread, and what a step costs the task::

    python tools/make_plan.py CONFIG CHECKPOINT --split backbone.layer3 \
        --out plan.safetensors
    python tools/test.py CONFIG CHECKPOINT --hook \
        "dict(type='mmfeatjnd.QuantizationHook',coded=True,tolerance=0.02,\
policy=dict(type='plan',plan='plan.safetensors'))"
"""
import argparse
from pathlib import Path

from mmfeatjnd.apis import make_plan
from mmfeatjnd.apis.plan import CODES, NATS
from mmfeatjnd.cli.arguments import add_split, block, count, positive
from mmfeatjnd.cli.configs import open_training
from mmfeatjnd.cli.console import plain_errors
from mmfeatjnd.cli.options import add_cfg_options
from mmfeatjnd.models.codec_plan import save_plan
from mmfeatjnd.models.metric_file import load_metric
from mmfeatjnd.utils import check_writable


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file path, of any host')
    parser.add_argument('checkpoint', help='checkpoint of the host')
    add_split(parser)
    parser.add_argument(
        '--out',
        required=True,
        type=Path,
        help='file for the plan, of the safetensors format')
    parser.add_argument(
        '--work-dir',
        help='folder of the log; by default `work_dir` of the config, else '
        './work_dirs/<config name>')
    parser.add_argument(
        '--code',
        choices=CODES,
        default='task',
        help='what the components are of: the task metric, the weights of '
        'the layers that read the split, or of the features alone')
    parser.add_argument(
        '--metric',
        help='file of tools/estimate_metric.py with --block; by default it '
        'is estimated here')
    parser.add_argument(
        '--images',
        type=count,
        default=400,
        help='how many training pictures, drawn at random; all of a smaller '
        'set')
    parser.add_argument(
        '--block',
        type=block,
        default='auto',
        help="side of the blocks of the DCT, tokens, or 'auto'")
    parser.add_argument(
        '--draws',
        type=count,
        default=3,
        help='draws of the gradient for each picture')
    parser.add_argument(
        '--nats',
        nargs='+',
        type=positive,
        default=list(NATS),
        help='expected nats of an image at the steps that are measured')
    parser.add_argument(
        '--adapt',
        type=positive,
        metavar='NATS',
        help='adapt steps to the picture, as far as that saves bits at this '
        'cost: to its blocks by the estimator, to itself by how sure the '
        'host is')
    parser.add_argument(
        '--no-tail',
        action='store_true',
        help='the sender cannot run the whole host: do not adapt steps to '
        'how sure it is')
    parser.add_argument(
        '--estimator',
        help='estimator file; by default the estimator of the checkpoint')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the choice of pictures, and of the draws')
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    with plain_errors():
        check_writable(args.out)
        cfg = open_training(args)
        metric = load_metric(args.metric) if args.metric else None
        plan = make_plan(
            cfg, args.checkpoint, metric, args.code, args.images, args.split,
            args.levels, args.block, args.draws, args.nats,
            adapt=args.adapt, tail=not args.no_tail,
            estimator=args.estimator, seed=args.seed)
        save_plan(plan, args.out)
        print(f"\nsplit='{plan.split}', code '{plan.code}', {plan.images} "
              'pictures')
        for level, parts in plan.parts.items():
            for part in parts:
                print(f'  level {level}: {part.gain.size(1)} channels, '
                      f'blocks of {part.block} x {part.block}, a basis for '
                      f'each {part.grouping}')
        if plan.block_power or plan.image_power:
            print(f'  steps adapted: blocks {plan.block_power:g}, image '
                  f'{plan.image_power:g}')
        for step, nats in plan.curve:
            print(f'  step {step:.4g}: {nats:.4g} nats of an image')
        print(f'Saved to {args.out}, {args.out.stat().st_size} bytes')


if __name__ == '__main__':
    main()
