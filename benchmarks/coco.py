"""The whole protocol on COCO: where noise costs the least, and bits, of public
R-50 checkpoints, on all images of val2017.

    make bench-coco COCO=data/coco GPUS=8    # or:
    python benchmarks/coco.py --coco data/coco --gpus 8
    python benchmarks/coco.py --coco data/coco --gpus 8 --dry-run

Of every host it trains three estimators on train2017, measures the learned
map and its controls, and the rates of several step policies, with all GPUs on
every curve, and writes benchmarks/results/{featjnd,quantization}_coco-<host>
.json. What is done is skipped, as long as its command is the same. The hosts
are fetched from where `load_from` of their configs says. The signed map of the
paper is no part of it.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple, Union

from common import (
    CONFIGS,
    ROOT,
    SEEDS,
    clean_of,
    count_images,
    describe_split,
    publish,
    read_config,
)
from featjnd import (
    DRAWS,
    MAIN,
    NRMSE,
    ONCE,
    VALID_NRMSE,
    comparisons,
)
from tokens import MEAN_BITS, NOISE_BUDGETS, POLICIES

from mmfeatjnd.cli.arguments import count
from mmfeatjnd.evaluation.rows import is_clean

HOSTS = ('mask-rcnn_r50', 'retinanet_r50', 'faster-rcnn_r50')
BATCH = 16  # images of an iteration, on all GPUs together
#: Of a detector.
STRENGTHS, VALID_STRENGTHS = NRMSE[True], VALID_NRMSE[True]
#: What the tools write into their --out.
OUTCOMES = dict(jnd_curve='curve.json', rate_curve='rates.json')
ANNOTATIONS = 'annotations/instances_{}2017.json'


class Step(NamedTuple):
    """A command, and the file that is there when it is done."""
    command: List[str]
    outcome: Path


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--coco',
        type=Path,
        required=True,
        help='folder of COCO, with annotations, train2017 and val2017')
    parser.add_argument(
        '--gpus',
        type=count,
        default=8,
        help=f'how many; a divisor of the {BATCH} images of an iteration')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/benchmarks/coco'))
    parser.add_argument(
        '--hosts',
        nargs='+',
        choices=HOSTS,
        default=HOSTS,
        metavar='HOST',
        help='by default ' + ' '.join(HOSTS))
    parser.add_argument(
        '--checkpoints',
        type=Path,
        help='folder with the files that `load_from` of the configs name, for '
        'a machine without network')
    parser.add_argument(
        '--draws',
        type=int,
        default=DRAWS,
        help='draws of the bootstrap over images, about a minute of one CPU '
        'for each row of COCO; with fewer the result is marked reduced')
    parser.add_argument(
        '--coded',
        action='store_true',
        help='write the bitstreams for the rates, seconds for each image and '
        'row; else they are those of the entropy model, without side '
        'information')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='print the commands, and run nothing')
    args = parser.parse_args(argv)
    if BATCH % args.gpus:
        parser.error(f'--gpus {args.gpus} does not divide the {BATCH} images '
                     'of an iteration')
    args.coco, args.work_dir = args.coco.resolve(), args.work_dir.resolve()
    if not args.dry_run:
        for split in ('train', 'val'):
            file = args.coco / ANNOTATIONS.format(split)
            if not file.is_file():
                parser.error(f'--coco {args.coco}: there is no {file}')
    return args


def weights_of(host: str, args: argparse.Namespace) -> str:
    """Where the weights of a host come from: a URL, or a file."""
    source = read_config(CONFIGS / f'featjnd/{host}.py').load_from
    if args.checkpoints is None:
        return source
    return str(args.checkpoints.resolve() / source.rpartition('/')[2])


def data_options(args: argparse.Namespace) -> List[str]:
    """The options of a config that say where COCO is."""
    return [
        f'train_dataloader.dataset.data_root={args.coco}/',
        f'test_dataloader.dataset.data_root={args.coco}/',
        f'test_evaluator.ann_file={args.coco}/{ANNOTATIONS.format("val")}'
    ]


def policy_argument(policy: Union[str, dict]) -> str:
    """A step policy, as ``rate_curve.py --policies`` reads it."""
    if isinstance(policy, str):
        return policy
    return f'dict({",".join(f"{k}={v!r}" for k, v in policy.items())})'


def steps_of(host: str, args: argparse.Namespace) -> List[Step]:
    """What is run for a host, in its order."""
    folder = args.work_dir / host
    config = f'configs/featjnd/{host}.py'
    iterations = read_config(ROOT / config).train_cfg.max_iters
    steps, estimators = [], []
    for seed in SEEDS:
        checkpoint = folder / f'seed{seed}' / f'iter_{iterations}.pth'
        estimators.append(folder / f'estimator_seed{seed}.pth')
        steps += [
            Step([
                'tools/dist_train.sh', config, args.gpus, '--work-dir',
                checkpoint.parent, '--no-validate', '--cfg-options',
                f'randomness.seed={seed}',
                f'load_from={weights_of(host, args)}',
                f'train_dataloader.batch_size={BATCH // args.gpus}',
                *data_options(args)
            ], checkpoint),
            Step([
                'python', 'tools/model_converters/extract_estimator.py',
                config, checkpoint, estimators[-1]
            ], estimators[-1]),
        ]
    # the host is in all of them
    trained = steps[0].outcome

    def curve(tool: str, config: str, name: str, number: int, *flags) -> Step:
        outcome = folder / name / OUTCOMES[tool]
        return Step([
            'tools/dist_curve.sh', tool, config, trained, args.gpus,
            '--estimators', *estimators[:number], '--seeds', number, '--out',
            outcome.parent, *flags, '--cfg-options', *data_options(args)
        ], outcome)

    def jnd(name: str, number: int, distortions, nrmse, *flags) -> Step:
        return curve('jnd_curve', config, name, number, '--distortions',
                     *distortions, '--nrmse', *nrmse, '--definition',
                     'channel', '--nats', '--draws', args.draws, *flags)

    steps += [
        jnd('jnd', len(SEEDS), MAIN, STRENGTHS),
        jnd('jnd_valid', len(SEEDS), MAIN, VALID_STRENGTHS, '--valid'),
        jnd('jnd_once', 1, (*ONCE, 'outside-boxes'), STRENGTHS),
        curve('rate_curve', f'configs/quantization/quantization_{host}.py',
              'rates', len(SEEDS), '--policies',
              *map(policy_argument, POLICIES.values()), '--mean-bits',
              *MEAN_BITS, '--noise-budgets', *NOISE_BUDGETS,
              '--nats',
              *[] if args.coded else ['--no-coded']),
    ]
    return [
        Step([str(word) for word in step.command], step.outcome)
        for step in steps
    ]


def run(step: Step) -> None:
    """Run a command in the checkout, unless that was done."""
    done = step.outcome.with_name(f'{step.outcome.name}.command')
    line = shlex.join(step.command)
    if step.outcome.is_file() and done.is_file() and done.read_text() == line:
        print(f'done already: {step.outcome}')
        return
    print(line, flush=True)
    done.unlink(missing_ok=True)
    step.outcome.parent.mkdir(parents=True, exist_ok=True)
    # the scripts call `python`
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    subprocess.run(
        step.command, cwd=ROOT, env=dict(os.environ, PATH=path), check=True)
    if not step.outcome.is_file():
        raise SystemExit(f'error: {line}\n  has not written {step.outcome}')
    done.write_text(line)


def publish_host(host: str, args: argparse.Namespace) -> None:
    """Write the results of a host from the files of its curves."""
    cfg = read_config(CONFIGS / f'featjnd/{host}.py')
    folder = args.work_dir / host

    def rows_of(name: str) -> List[dict]:
        return json.loads((folder / name).read_text())

    dataset = dict(
        cfg.test_dataloader.dataset, data_root=f'{args.coco}/')
    images = count_images(cfg, dataset)
    about = dict(
        command='python benchmarks/coco.py ' + ' '.join(sys.argv[1:]),
        host=Path(cfg.load_from).stem,
        host_checkpoint=cfg.load_from,
        split_point=cfg.model.neck.get('split', 'backbone'),
        dataset='COCO',
        train_split='that of the stock weights',
        estimator_draws=BATCH * cfg.train_cfg.max_iters,
        test_split=describe_split('val2017', images, images))
    jnd = [
        row for name in ('jnd', 'jnd_valid', 'jnd_once')
        for row in rows_of(f'{name}/curve.json')
    ]
    clean = clean_of([row for row in jnd if is_clean(row)])
    compared = {}
    if args.draws:
        compared = dict(comparisons=comparisons(jnd))
    for row in jnd:
        row.pop('draws', None)
    publish(
        f'featjnd_coco-{host}',
        dict(
            claim='Noise shared out among tokens by the learned map costs '
            'the task at most half of what it costs by the best map that does '
            'not know the image.',
            **about,
            clean=clean,
            reduced=args.draws < DRAWS,
            **compared,
            rows=[row for row in jnd if not is_clean(row)]))
    rates = rows_of('rates/rates.json')
    publish(
        f'quantization_coco-{host}',
        dict(
            claim='At equal noise, steps from FeatJND cost the task less than '
            'the same steps permuted and than one step; at a relative loss of '
            '1 % they need at least 20 % fewer bits than one step.',
            **about,
            clean=clean_of(rates),
            # without side information it is no rate that anybody can send
            reduced=not args.coded,
            rows=[row for row in rates if not is_clean(row)]))


def main(argv=None) -> None:
    args = parse_args(argv)
    for host in args.hosts:
        steps = steps_of(host, args)
        if args.dry_run:
            print(f'# {host}: {weights_of(host, args)}')
            for step in steps:
                print(shlex.join(step.command))
            continue
        for step in steps:
            run(step)
        publish_host(host, args)


if __name__ == '__main__':
    main()
