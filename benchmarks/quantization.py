"""Bits: features in the task's own metric, against other codes, raw features
token by token, and the picture itself.

    python benchmarks/quantization.py mobilenet
    python benchmarks/quantization.py yolox --parts codes pictures

Measures the task metric, nats and coded bytes of every code on all test
images, one after the other (what is measured is kept and not measured again),
with the host and the estimators of benchmarks/featjnd.py where it trains
them, and writes benchmarks/results/quantization_<set>.json. docs/benchmarks.md
says where to get the data.
"""
import json
from pathlib import Path
from typing import Dict, List, Optional

from codes import NATS, SPLITS, macs_of, rows_of_codes, rows_of_pictures
from common import (
    BENCHMARKS,
    CONFIGS,
    CurveBenchmark,
    benchmark_parser,
    clean_of,
    read_config,
)
from mmengine.config import Config
from tokens import MEAN_BITS, NOISE_BUDGETS, POLICIES, rows_of_tokens

from mmfeatjnd.apis.pictures import PLACES
from mmfeatjnd.apis.plan import CODES
from mmfeatjnd.evaluation.bootstrap import interval
from mmfeatjnd.evaluation.codes import (
    Key,
    bd_rate,
    code_curves,
    size_at_loss,
    size_at_nats,
    times,
)
from mmfeatjnd.evaluation.comparison import clean_draws, compare
from mmfeatjnd.evaluation.rows import is_clean
from mmfeatjnd.utils import config_library

#: What is measured: plans; of the first split, clipping; where the estimators
#: are, steps that follow the picture, and steps of raw tokens; pictures.
PARTS = ('codes', 'clipped', 'adapted', 'pictures', 'tokens')
#: Where codes are compared: nats of an image, of a detector of an object that
#: is annotated, and relative losses of the task metric.
TARGETS = (0.02, 0.05)
LOSSES = (0.01, 0.02, 0.05)
#: What the steps of the learned map are compared with at equal noise.
REFERENCES = ('one-step', 'token-map-static', 'permuted-steps')


def parse_args(argv=None):
    parser = benchmark_parser(__doc__)

    def several(name: str, **kwargs):
        parser.add_argument(f'--{name}', nargs='+', **kwargs)

    several('parts', choices=PARTS, default=PARTS)
    several('splits', help='by default all')
    several('codes', choices=CODES, default=CODES)
    several('nats', type=float, help='of plans, by default those of the host')
    several('policies', choices=POLICIES, default=list(POLICIES),
            help='of raw tokens')
    several('mean-bits', type=float, default=MEAN_BITS, help='likewise')
    several('noise-budgets', type=float, default=NOISE_BUDGETS,
            help='likewise')
    args = parser.parse_args(argv)
    cfg = read_config(CONFIGS / BENCHMARKS[args.benchmark]['host'])
    args.splits = args.splits or list(SPLITS[args.benchmark])
    args.nats = args.nats or NATS[config_library(cfg) == 'mmdet']
    return args


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
    """What the rows say: the bits of every code where they cost alike, whose
    bits are how many times another's, and what steps cost at equal noise.

    Args:
        rows (list[dict]): All, with draws.
        objects (float): Number in an image, of which the nats count.
    """
    clean = next(r for r in rows if is_clean(r))
    metrics = [m for m in clean['draws'] if m != 'kl']
    at_noise = [r for r in rows if r.get('protocol') == 'equal-noise']
    curves = code_curves(rows)
    targets = [('kl', x) for x in TARGETS]
    targets += [(m, x) for m in metrics for x in LOSSES]
    result: Dict[str, list] = dict(bits=[], times=[], bd_rate=[],
                                   equal_noise=[])
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
    # a policy with few levels cannot make little noise
    as_noise = [clean, *(
        dict(r, distortion=r['policy'], nrmse=r['noise_budget'])
        for r in at_noise
        if abs(r['nrmse_measured'] / r['noise_budget'] - 1) <= 0.05)]
    for metric in ('kl', *metrics):
        for reference in REFERENCES:
            result['equal_noise'] += compare(as_noise, metric,
                                             controls=[reference],
                                             reference='one-step')
    return result


def _pairs(found: Dict[Key, Optional[tuple]]) -> List[tuple]:
    """What is compared: 'task' with the codes of its split, what of ours with
    pictures, and steps of raw tokens with each other."""
    codes: Dict[str, List[str]] = {}
    for place, name in found:
        codes.setdefault(place, []).append(name)
    pairs = [(('tokens', 'featjnd'), ('tokens', n))
             for n in codes.get('tokens', ()) if n != 'featjnd']
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
        args, 'quantization',
        dict(parts=PARTS, splits=SPLITS[args.benchmark], codes=CODES,
             policies=POLICIES, mean_bits=MEAN_BITS,
             noise_budgets=NOISE_BUDGETS))
    rows = rows_of_codes(benchmark, args.splits, args.codes, args.nats,
                         args.parts)
    if 'pictures' in args.parts:
        rows += rows_of_pictures(benchmark)
    if 'tokens' in args.parts:
        rows += rows_of_tokens(benchmark, args.policies, args.mean_bits,
                               args.noise_budgets)
    clean_of(rows)
    cfg = read_config(benchmark.config)
    objects = objects_of(cfg)
    compared = comparisons(rows, objects)
    cfg.work_dir = str(benchmark.work_dir / 'macs')
    macs = macs_of(cfg, benchmark.host, args.splits)
    for row in rows:
        row.pop('draws', None)
        if 'split' in row:
            row['macs_before'] = macs[row['split']][0]
    clean = next(r for r in rows if is_clean(r))
    benchmark.publish(
        'Coded in the task metric, features take at most a third of the bits '
        'of one step at equal nats, and a fraction of those of the best '
        'picture codec. Raw features with steps from the learned map cost '
        'less at equal noise than with one step, static or permuted ones.',
        [clean, *(r for r in rows if not is_clean(r))],
        comparisons=compared, objects=objects, macs=macs)


if __name__ == '__main__':
    main()
