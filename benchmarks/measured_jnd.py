"""Measured thresholds of tokens, channel groups and images, and how well they
are predicted, on real images.

    python benchmarks/measured_jnd.py yolox
    python benchmarks/measured_jnd.py mobilenet

Trains the host and three estimators, both shared with benchmarks/featjnd.py
(what is done is skipped), measures thresholds on test images, other ones for
each seed (an image that is measured is kept), and writes
benchmarks/results/measured_jnd_<set>.json, thresholds included.
docs/benchmarks.md says where to get the data.
"""
from cache import content, keyed
from common import (
    SEEDS,
    CurveBenchmark,
    benchmark_parser,
    environment,
    read_config,
)

from mmfeatjnd.apis import JNDMeter, measure_jnd
from mmfeatjnd.cli.arguments import count
from mmfeatjnd.evaluation.measured_jnd import responses, scores

IMAGES = 24
#: What is measured of each image.
ASKED = dict(tokens=16, groups=4, nats=[0.01],
             image_nats=[0.005, 0.01, 0.02, 0.05])


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        '--images', type=count, default=IMAGES,
        help='test images for each seed')
    parser.add_argument(
        '--rows', type=count, default=32,
        help='copies of an image that run through the host at once')
    return parser.parse_args(argv)


def rounded(value, digits: int = 3):
    """JSON whose numbers have few digits."""
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v, digits) for v in value]
    return round(value, digits) if isinstance(value, float) else value


def main(argv=None):
    args = parse_args(argv)
    benchmark = CurveBenchmark(args, 'measured_jnd', {})
    benchmark.complete = args.images >= min(IMAGES, benchmark.whole)
    cfg = read_config(benchmark.config)
    rows, every = [], []
    for seed, estimator in zip(SEEDS, benchmark.estimators('featjnd', {})):
        key = content(dict(
            environment(), config=cfg, host=benchmark.host,
            estimator=estimator, seed=seed, images=args.images, **ASKED))
        folder = keyed(benchmark.work_dir / f'measured_jnd_{seed}', key)
        cfg.work_dir = str(folder)
        meter = JNDMeter(cfg, benchmark.host, estimator, rows=args.rows,
                         seed=seed)
        images = measure_jnd(meter, folder / 'thresholds.jsonl', args.images,
                             **ASKED)
        rows += [dict(row, seed=seed)
                 for row in scores(images) + responses(images)]
        every += [dict(image=f'{seed}/{i["image"]}',
                       thresholds=i['thresholds']) for i in images]
    benchmark.publish(
        'Rank correlation of the Fisher information of an image with the '
        'measured thresholds of its tokens is at least 0.85; predicted and '
        'measured nats of whole images are within a factor 1.5 from 0.005 to '
        '0.05 nats.', [dict(policy='clean', metrics={}), *rows],
        images=rounded(every))


if __name__ == '__main__':
    main()
