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
import json
from pathlib import Path
from typing import Dict, List, Optional

from common import (
    BENCHMARKS,
    CONFIGS,
    SEEDS,
    CurveBenchmark,
    benchmark_parser,
    read_config,
)
from mmengine.config import Config

from mmfeatjnd.apis import OperationTest, estimate_metric, make_plan
from mmfeatjnd.apis.pictures import PLACES, measure_pictures
from mmfeatjnd.apis.plan import CODES
from mmfeatjnd.apis.split_guide import count_macs
from mmfeatjnd.evaluation.bootstrap import interval
from mmfeatjnd.evaluation.codes import (
    Key,
    bd_rate,
    code_curves,
    size_at_loss,
    size_at_nats,
    times,
)
from mmfeatjnd.evaluation.comparison import clean_draws
from mmfeatjnd.models import (
    Quantization,
    load_metric,
    load_plan,
    neck_at,
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
    True: (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),  # detectors
    False: (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
}
#: Nats at which powers of adaptive steps are chosen.
ADAPT = {True: 10.0, False: 0.02}
QUALITIES = dict(
    jpeg=(40, 75, 90, 97),
    webp=(30, 70, 90, 98),
    avif=(40, 60, 78, 88, 95))
#: Where pictures are encoded; what only crops them takes them as they are.
ENCODED = {True: PLACES, False: ('full', )}
#: Bins of clipping, from the image's own range.
BINS = (2, 3, 4, 6, 8, 16, 32, 64)
#: Where codes are compared: nats of an image, of a detector of an object that
#: is annotated, and relative losses of the task metric.
TARGETS = (0.02, 0.05)
LOSSES = (0.01, 0.02, 0.05)
IMAGES = 400
DRAWS = 200


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)
    parser.add_argument('--splits', nargs='+', help='by default all')
    parser.add_argument('--codes', nargs='+', choices=CODES, default=CODES)
    parser.add_argument(
        '--nats', nargs='+', type=float, help='by default those of the host')
    parser.add_argument(
        '--no-pictures',
        action='store_true',
        help='leave out the pictures; the result is marked reduced')
    parser.add_argument(
        '--no-adapted',
        action='store_true',
        help='leave out steps that follow the picture, likewise')
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
        f'codec_{plans.split}_adapted',
        lambda cfg, host, estimators: measure(cfg, host, plans.split,
                                              estimators, asked),
        split=plans.split, asked=asked)


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


def macs_of(cfg: Config, host: str, splits: List[str]) -> dict:
    """Multiply-adds before and after each split, of the first picture."""
    test = OperationTest(cfg, host, (), splits[0])
    return {s: count_macs(neck_at(test.model, s), test.dataloader())
            for s in splits}


# --------------------------------------------------------------- what they say
def objects_of(cfg: Config) -> float:
    """Annotated objects of a test image; 1 of classifiers."""
    file = cfg.test_evaluator.get('ann_file')
    if file is None:
        return 1.0
    coco = json.loads(Path(file).read_text())
    return len(coco['annotations']) / len(coco['images'])


def _shown(found, unit: Optional[float]) -> Optional[dict]:
    """Bits of log2 bytes in a unit, with what is known of them."""
    if unit is None or found[0].relation == '?':
        return None
    _, low, high = interval([f.value for f in found])
    value, low, high = (unit * 2**x for x in (found[0].value, low, high))
    return dict(value=value, relation=found[0].relation, low=low, high=high)


def comparisons(rows: List[dict], objects: float) -> Dict[str, list]:
    """What the rows say: the bits of every code where they cost alike, and
    whose bits are how many times another's.

    Args:
        rows (list[dict]): All, with draws.
        objects (float): Number in an image, of which the nats count.
    """
    curves = code_curves(rows)
    clean = next(r for r in rows if r['policy'] == 'clean')
    targets = [('kl', x) for x in TARGETS]
    targets += [(m, x) for m in clean['draws'] if m != 'kl' for x in LOSSES]
    result: Dict[str, list] = dict(bits=[], times=[], bd_rate=[])
    for metric, target in targets:
        found = {
            key: size_at_nats(curve, target * objects) if metric == 'kl' else
            size_at_loss(curve, metric, clean_draws(rows, metric), target)
            for key, curve in curves.items()
        }
        at = dict(metric=metric, target=target)
        for (place, name), sizes in found.items():
            curve = curves[place, name]
            result['bits'].append(dict(
                at, place=place, code=name,
                per_pixel=_shown(sizes, curve.per_pixel),
                per_element=_shown(sizes, curve.per_element)))
        for ours, theirs in _pairs(found):
            ratio = times(found[ours], found[theirs])
            result['times'].append(dict(
                at, ours=ours, theirs=theirs,
                ratio=None if ratio is None else list(ratio)))
    for ours, theirs in _pairs(dict.fromkeys(curves)):
        result['bd_rate'].append(dict(
            ours=ours, theirs=theirs,
            percent=bd_rate(curves[ours], curves[theirs])))
    return result


def _pairs(found: Dict[Key, Optional[tuple]]) -> List[tuple]:
    """What is compared: 'task' with the codes of its split, and what of ours
    with pictures."""
    codes: Dict[str, List[str]] = {}
    for place, name in found:
        codes.setdefault(place, []).append(name)
    pairs = []
    for place, names in codes.items():
        if 'task' not in names:
            continue
        pairs += [((place, 'task'), (place, n)) for n in names
                  if not n.startswith('task')]
        pairs += [((place, n), (place, 'task')) for n in names
                  if n.startswith('task-')]
        pairs += [((place, ours), (other, n))
                  for ours in ('task', 'task-adapted') if ours in names
                  for other in PLACES for n in codes.get(other, ())]
    return pairs


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
        if first:
            rows += benchmark.measure(
                f'codec_{split}_clipped',
                lambda cfg, host, _: clipped(cfg, host, split), split=split,
                bins=BINS)
        if split == benchmark.split and 'task' in args.codes and \
                not args.no_adapted:
            rows += adapted(benchmark, plans)
    if not args.no_pictures:
        rows += benchmark.measure(
            'codec_pictures',
            lambda cfg, host, _: measure_pictures(
                cfg, host, QUALITIES, ENCODED[args.detector], draws=DRAWS),
            qualities=QUALITIES, places=ENCODED[args.detector])
    benchmark.complete &= not (args.no_pictures or args.no_adapted)
    first = next(r for r in rows if r['policy'] == 'clean')
    objects = objects_of(read_config(benchmark.config))
    compared = comparisons(rows, objects)
    cfg = read_config(benchmark.config)
    cfg.work_dir = str(benchmark.work_dir / 'macs')
    macs = macs_of(cfg, benchmark.host, args.splits)
    for row in rows:
        row.pop('draws', None)
    benchmark.publish(
        'Coded in the task metric, features take at most a third of the bits '
        'of one step at equal nats, and a fraction of those of the best '
        'picture codec.',
        [first, *(r for r in rows if r['policy'] != 'clean')],
        comparisons=compared, objects=objects, macs=macs)


if __name__ == '__main__':
    main()
