"""Features in the task's own metric, against other codes and the picture.

    python benchmarks/codec.py mobilenet
    python benchmarks/codec.py yolox --splits backbone backbone.stage2

Makes the plans of unlabelled training pictures (with the host and the
estimators of benchmarks/featjnd.py where it trains them), measures task
metric, nats and coded bytes at several steps of every code, and the same of
pictures as JPEG, WebP and AVIF; one code after the other, so that a run that
is cut goes on. Writes benchmarks/results/codec_<set>.json. docs/benchmarks.md
says where to get the data.
"""
from typing import List

from cache import content, keyed
from common import (
    BENCHMARKS,
    CONFIGS,
    SEEDS,
    CurveBenchmark,
    benchmark_parser,
    environment,
    read_config,
)

from mmfeatjnd.apis import OperationTest, estimate_metric, make_plan
from mmfeatjnd.apis.pictures import measure_pictures
from mmfeatjnd.apis.plan import CODES
from mmfeatjnd.models import (
    Quantization,
    load_metric,
    load_plan,
    save_metric,
    save_plan,
)
from mmfeatjnd.utils import config_library

#: Splits; the first has all codes.
SPLITS = dict(
    mobilenet=('backbone.layer5', 'backbone.layer4', 'backbone.layer3',
               'backbone.layer6'),
    yolox=('backbone.stage2', 'backbone'),
    dsb2018=('backbone', 'backbone.layer1', 'backbone.layer2',
             'backbone.layer3'),
    cifar10=('backbone.layer2', ))
#: Expected nats of an image at the steps that are measured.
NATS = {
    True: (1.0, 2.5, 6.0, 15.0, 40.0, 100.0),  # detectors
    False: (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
}
#: Nats at which powers of adaptive steps are chosen.
ADAPT = {True: 10.0, False: 0.02}
QUALITIES = dict(
    jpeg=(20, 40, 60, 75, 85, 92, 97),
    webp=(10, 25, 45, 65, 80, 88, 94, 98),
    avif=(25, 40, 55, 70, 78, 85, 90, 95))
IMAGES = 400
DRAWS = 200


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)
    parser.add_argument('--splits', nargs='+', help='by default all')
    parser.add_argument('--codes', nargs='+', choices=CODES, default=CODES)
    parser.add_argument(
        '--nats', nargs='+', type=float, help='by default those of the host')
    parser.add_argument(
        '--no-pictures', action='store_true', help='leave out the pictures')
    args = parser.parse_args(argv)
    cfg = read_config(CONFIGS / BENCHMARKS[args.benchmark]['host'])
    args.detector = config_library(cfg) == 'mmdet'
    args.splits = args.splits or list(SPLITS[args.benchmark])
    args.nats = args.nats or NATS[args.detector]
    return args


class Plans:
    """The plans of a split, made once each.

    Args:
        benchmark (CurveBenchmark): Whose.
        split (str): The split.
        nats (Sequence[float]): Of the steps.
        adapt (float): Nats at which powers are chosen.
    """

    def __init__(self, benchmark: CurveBenchmark, split: str, nats,
                 adapt: float) -> None:
        self.benchmark = benchmark
        self.split = split
        self.nats = tuple(nats)
        self.adapt = adapt
        self.cfg = read_config(benchmark.config)

    def _file(self, name: str, **more):
        folder = keyed(
            self.benchmark.work_dir / name,
            content(dict(environment(), config=self.cfg, split=self.split,
                         host=self.benchmark.host, images=IMAGES, **more)))
        self.cfg.work_dir = str(folder)
        return folder / f'{name}.safetensors'

    def metric(self):
        file = self._file('codec_metric')
        if not file.is_file():
            save_metric(estimate_metric(
                self.cfg, self.benchmark.host, IMAGES, 3, self.split,
                block='auto'), file)
        return load_metric(file)

    def plan(self, code: str, estimator=None) -> str:
        """The file of a plan, adapted with an estimator."""
        file = self._file('plan', code=code, nats=self.nats,
                          adapt=self.adapt, estimator=estimator)
        if not file.is_file():
            save_plan(make_plan(
                self.cfg, self.benchmark.host, self.metric(), code, IMAGES,
                self.split, nats=self.nats, estimator=estimator,
                adapt=self.adapt if estimator else None), file)
        return str(file)


def measure(cfg, host: str, split: str, estimators: List[str],
            asked: List[dict]) -> List[dict]:
    """Rows of the clean host and of plans at their steps.

    Args:
        cfg (Config): The config.
        host (str): Its checkpoint.
        split (str): The split.
        estimators (list[str]): Files, where steps are adapted.
        asked (list[dict]): ``name``, ``plan``, ``permuted`` and ``seed``.
    """
    test = OperationTest(cfg, host, estimators, split)
    settings = []
    for x in asked:
        plan = load_plan(x['plan'])
        for step, nats in plan.curve:
            operation = Quantization(
                dict(type='plan', plan=plan, permuted=x['permuted']),
                scale=step, coded=True, seed=x['seed'])
            settings.append((SEEDS.index(x['seed']) if estimators else 0,
                             operation,
                             dict(policy=x['name'], split=split,
                                  expected_nats=nats)))
    rows = test.measure(
        [(i, o) for i, o, _ in settings], nats=True, draws=DRAWS,
        fields=[dict(policy='clean', split=split)] +
        [fields for *_, fields in settings])
    return rows


def adapted(benchmark: CurveBenchmark, plans: Plans) -> List[dict]:
    """Rows of steps that follow the picture, by the estimator of each seed,
    and of the same permuted over its blocks."""
    files = benchmark.estimators('featjnd', {})
    asked = [
        dict(name=name, plan=plans.plan('task', file), permuted=permuted,
             seed=seed) for seed, file in zip(SEEDS, files)
        for name, permuted in (('task-adapted', False),
                               ('task-adapted-permuted', True))
    ]
    return benchmark.measure(
        f'codec_{plans.split}_adapted',
        lambda cfg, host, estimators: measure(cfg, host, plans.split,
                                              estimators, asked),
        split=plans.split, asked=asked)


def main(argv=None):
    args = parse_args(argv)
    benchmark = CurveBenchmark(
        args, 'codec',
        dict(splits=SPLITS[args.benchmark], codes=CODES,
             nats=NATS[args.detector]))
    rows: List[dict] = []
    for split in args.splits:
        plans = Plans(benchmark, split, args.nats, ADAPT[args.detector])
        first = split == args.splits[0]
        codes = args.codes if first else \
            [c for c in ('task', 'uniform') if c in args.codes]
        for code in codes:
            asked = [dict(name=code, plan=plans.plan(code), permuted=False,
                          seed=SEEDS[0])]
            rows += benchmark.measure(
                f'codec_{split}_{code}',
                lambda cfg, host, _: measure(cfg, host, split, [], asked),
                split=split, asked=asked)
        if split == benchmark.split and 'task' in args.codes:
            rows += adapted(benchmark, plans)
    if not args.no_pictures:
        rows += benchmark.measure(
            'codec_pictures',
            lambda cfg, host, _: measure_pictures(
                cfg, host, QUALITIES, draws=DRAWS),
            qualities=QUALITIES)
    else:
        benchmark.complete = False
    first = next(r for r in rows if r['policy'] == 'clean')
    for row in rows:
        row.pop('draws', None)
    benchmark.publish(
        'Coded in the task metric, features take at most a third of the bits '
        'of one step at equal nats, and a fraction of those of the best '
        'picture codec.',
        [first, *(r for r in rows if r['policy'] != 'clean')])


if __name__ == '__main__':
    main()
