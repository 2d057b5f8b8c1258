"""Rows of codes of features, and of the picture itself, for
benchmarks/quantization.py.

Plans are made of unlabelled training pictures; nats, the metrics of the task
and coded bytes are measured at several steps of every code.
"""
from typing import List

from common import SEEDS, CurveBenchmark, read_config

from mmfeatjnd.apis import OperationTest, estimate_metric, make_plan
from mmfeatjnd.apis.pictures import PLACES, measure_pictures
from mmfeatjnd.apis.split_guide import count_macs
from mmfeatjnd.models import (
    Quantization,
    load_metric,
    load_plan,
    neck_at,
    save_metric,
    save_plan,
)

#: Splits; the first has all codes.
SPLITS = dict(
    mobilenet=('backbone.layer5', 'backbone.layer4', 'backbone.layer3',
               'backbone.layer6'),
    yolox=('backbone.stage2', 'backbone'),
    dsb2018=('backbone', 'backbone.layer1', 'backbone.layer2',
             'backbone.layer3'),
    cifar10=('backbone.layer2', ))
#: Codes of the other splits.
INNER = ('task', 'uniform')
#: Expected nats of an image at the steps that are measured.
NATS = {
    True: (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),  # detectors
    False: (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
}
#: Nats at which powers of adaptive steps are chosen.
ADAPT = {True: 10.0, False: 0.02}
QUALITIES = dict(
    jpeg=(40, 75, 90, 97, 99),
    webp=(30, 70, 90, 98, 100),
    avif=(40, 60, 78, 88, 95, 100))
#: Where pictures are encoded; what only crops them takes them as they are.
ENCODED = {True: PLACES, False: ('full', )}
#: Bins of clipping, from the image's own range.
BINS = (2, 3, 4, 6, 8, 16, 32, 64)
#: Pictures of which a plan is made.
IMAGES = 400
#: Of the bootstrap over images.
DRAWS = 200


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

    def metric(self):
        cfg = read_config(self.benchmark.config)
        file = self.benchmark.kept_file('codec_metric', cfg, split=self.split,
                                        images=IMAGES)
        if not file.is_file():
            save_metric(estimate_metric(
                cfg, self.benchmark.host, IMAGES, 3, self.split,
                block='auto'), file)
        return load_metric(file)

    def plan(self, code: str, estimator=None) -> str:
        """The file of a plan, adapted with an estimator."""
        cfg = read_config(self.benchmark.config)
        file = self.benchmark.kept_file(
            'plan', cfg, split=self.split, images=IMAGES, code=code,
            nats=self.nats, adapt=self.adapt, estimator=estimator)
        if not file.is_file():
            save_plan(make_plan(
                cfg, self.benchmark.host, self.metric(), code, IMAGES,
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
        f'{plans.split}_adapted',
        lambda cfg, host, estimators: measure(cfg, host, plans.split,
                                              estimators, asked),
        files, split=plans.split, asked=asked)


def clipped(cfg, host: str, split: str) -> List[dict]:
    """Rows of clipping with several numbers of bins."""
    test = OperationTest(cfg, host, (), split)
    operations = [
        Quantization(dict(type='clip-uniform', bins=bins), coded=True)
        for bins in BINS
    ]
    return test.measure(
        [(0, o) for o in operations], nats=True, draws=DRAWS,
        fields=[dict(policy='clean', split=split)] +
        [dict(policy='clip-uniform', split=split, bins=n) for n in BINS])


def macs_of(cfg, host: str, splits: List[str]) -> dict:
    """Multiply-adds before and after each split, of the first picture."""
    test = OperationTest(cfg, host, (), splits[0])
    return {s: count_macs(neck_at(test.model, s), test.dataloader())
            for s in splits}


def rows_of_codes(benchmark: CurveBenchmark, splits, codes, nats,
                  parts) -> List[dict]:
    """The rows of plans at several splits.

    Args:
        benchmark (CurveBenchmark): Whose.
        splits (Sequence[str]): The splits; the first has all codes, the
            others those of ``INNER``.
        codes (Sequence[str]): The codes.
        nats (Sequence[float]): Of the steps.
        parts (Sequence[str]): 'codes', 'clipped' (at the first split) and
            'adapted' (where the estimators are).
    """
    rows: List[dict] = []
    for split in splits:
        plans = Plans(benchmark, split, nats, ADAPT[benchmark.detector])
        first = split == splits[0]
        if 'codes' in parts:
            for code in codes if first else [c for c in INNER if c in codes]:
                rows += one_code(benchmark, plans, code)
        if first and 'clipped' in parts:
            rows += benchmark.measure(
                f'{split}_clipped',
                lambda cfg, host, _: clipped(cfg, host, split), split=split,
                bins=BINS)
        if split == benchmark.split and 'adapted' in parts:
            rows += adapted(benchmark, plans)
    return rows


def one_code(benchmark: CurveBenchmark, plans: Plans, code: str) -> List[dict]:
    """Rows of a plan with one step for all pictures."""
    asked = [dict(name=code, plan=plans.plan(code), permuted=False,
                  seed=SEEDS[0])]
    return benchmark.measure(
        f'{plans.split}_{code}',
        lambda cfg, host, _: measure(cfg, host, plans.split, [], asked),
        split=plans.split, asked=asked)


def rows_of_pictures(benchmark: CurveBenchmark) -> List[dict]:
    """Rows of the picture itself."""
    places = ENCODED[benchmark.detector]
    rows: List[dict] = []
    for codec in QUALITIES.items():
        rows += benchmark.measure(
            f'pictures_{codec[0]}',
            lambda cfg, host, _: measure_pictures(cfg, host, dict([codec]),
                                                  places, draws=DRAWS),
            qualities=codec[1], places=places)
    return rows
