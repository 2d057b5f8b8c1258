"""The tables of results in README.md."""
import textwrap
from typing import Callable, Dict, List, Optional

import report_featjnd
import report_quantization
from report_dmv_jnd import mean, pick

from mmfeatjnd.evaluation import clean_metrics, markdown_table

BEGIN = '<!-- written by benchmarks/report.py: begin -->\n'
END = '<!-- written by benchmarks/report.py: end -->\n'
TITLES = dict(
    featjnd='FeatJND', quantization='quantization', dmv_jnd='DMV-JND')
#: Share of the task metric that the best control loses at the strength that
#: is shown, or as near to it as was measured.
LOST = 0.1
OUTDATED = """\
Measured on a part of the test images, and before the faults of 0.1.0 in noise,
clipping baselines, seeds and bits per element were mended, and kept until it
is measured anew: {names}.
"""
FEATJND = """\
**What noise at the split costs the task**, by where it is put: percent of the
clean metric that is lost [95 % interval over the test images], mean over
{seeds} estimators. All get noise of the same RMS on every image, in standard
deviations of the channels: white noise everywhere alike, the learned map where
it says. The control is the best of four maps that know less of the image (one
number a level, the mean of the training, the map of another picture, the
learned one permuted), and the strength is the measured one at which it loses
nearest to {lost:.0f} %. {reduced}
"""
PARTLY = """\
Some are reduced: docs/benchmarks.md says what of.
"""
OCTAVES = """\
**How much more noise than white a classifier tolerates** until its answer is
{nats:g} nats away, in octaves [95 % interval]: 1 is twice the RMS.
"""
FEATJND_PICTURE = """\
![What is lost of {metric} against the strength of the noise, for all maps]\
(docs/images/{picture})
"""
QUANTIZATION = """\
**Bits per pixel where the answer of the host is {nats:g} nats away** (of
detectors: for every annotated object), container included [95 % interval]: the
features in the task's own metric, by a Karhunen-Loeve transform with a DCT,
and with one step for all; and the picture itself in the best of JPEG, WebP and
AVIF.
"""
QUANTIZATION_PICTURE = """\
![Nats and {metric} against bits per pixel, for features and pictures]\
(docs/images/{picture})
"""
DMV_JND = """\
**How many images keep their label** when the JND of their pixels is added, or
white noise of the same power: share of the test images of CIFAR-10, mean of
{tasks} classifiers (RCA). {reduced}The paper has 92.18 % at 9.56 dB; the goal
is 95 %.
"""
REDUCED = """\
Reduced: narrow classifiers, a short training, a part of the images. """
Results = List[dict]


def split_of(result: dict, split: Optional[str] = None) -> str:
    return (f'`{result["host"]}`, {result["dataset"]}, '
            f'`{split or result["split_point"]}`')


def seeds(results: Results) -> str:
    """How many, in words that a table can be read by."""
    numbers = {len({r['seed'] for r in x['rows']}) for x in results}
    return ' or '.join(str(n) for n in sorted(numbers))


def shown(compared: List[dict]) -> Optional[dict]:
    """The strength that the table shows: where the best control's loss is
    nearest to ``LOST``, with any features."""
    rows = [row for row in compared if not row['valid']]
    return min(rows, key=lambda row: abs(row['control'][0] - LOST),
               default=None)


def featjnd(results: Results, task_metrics: Callable) -> str:
    lines = []
    for result in results:
        for metric in task_metrics(result):
            row = shown(result.get('comparisons', {}).get(metric, ()))
            if row is None:
                continue
            white, control, ours = (
                report_featjnd.loss(row[side], metric)
                for side in ('reference', 'control', 'ours'))
            lines.append([
                split_of(result),
                f'`{metric}` {clean_metrics(result["rows"])[metric]:.4g}',
                f'{row["nrmse"]:g}', white,
                f'{control} (`{row["best_control"]}`)', f'**{ours}**'
            ])
    return markdown_table([
        'host, data, split', 'metric of the clean host', 'RMS', 'white noise',
        'best control', 'learned map'
    ], lines)


def octaves(results: Results) -> List[str]:
    """What classifiers tolerate, if it was in reach."""
    lines, nats = [], None
    for result in results:
        found = [
            report_featjnd.octaves(result, name, valid)
            for valid in report_featjnd.PANELS
            for name in ('static', 'featjnd')
        ]
        if found[1] is None:
            continue
        nats = result['comparisons']['octaves_at_nats'][0]['nats']
        lines.append([split_of(result)] + [
            'not known' if x is None else report_featjnd.estimate(x, '.2f')
            for x in found
        ])
    if not lines:
        return []
    return [OCTAVES.format(nats=nats), markdown_table([
        'host, data, split', *(f'{name}, {title}'
                               for title in report_featjnd.PANELS.values()
                               for name in ('mean map', 'learned map'))
    ], lines)]


def dmv_jnd(result: dict) -> str:
    names = dict(
        clipped='clipped to an image', unclipped='not clipped, as the paper')
    lines = []
    for variant in dict.fromkeys(r['variant'] for r in result['rows']):
        rows = pick(result['rows'], variant=variant, scale=1.0, strength=1.0,
                    split='test')
        jnd = pick(rows, distortion='dmv-jnd')
        noise = pick(rows, distortion='gaussian')
        lines.append([
            names[variant], mean(jnd, 'psnr'), mean(jnd, 'rca/mean'),
            mean(noise, 'rca/mean')
        ])
    return markdown_table(
        ['image with JND', 'PSNR (dB)', 'keep their label, JND (%)',
         'keep their label, white noise (%)'], lines)


def tables(results: Dict[str, Results], task_metrics: Callable,
           outdated: Callable) -> str:
    """All tables with what they need to be read.

    Args:
        results (dict[str, list[dict]]): Results by the kind of benchmark.
        task_metrics (Callable): Function from a result to the metrics to
            show.
        outdated (Callable): Whether a result is of an earlier protocol.
    """
    parts = []
    # of FeatJND and of quantization only what today's protocol says
    results = dict(
        results, **{
            kind: [r for r in results[kind] if not outdated(r)]
            for kind in ('featjnd', 'quantization')
        })
    old = [
        f'{TITLES[kind]} on {result["dataset"]}'
        for kind, found in results.items() for result in found
        if outdated(result)
    ]
    if results['featjnd']:
        first = results['featjnd'][0]
        metric = task_metrics(first)[0]
        parts += [
            textwrap.fill(
                FEATJND.format(
                    seeds=seeds(results['featjnd']),
                    lost=100 * LOST,
                    reduced=PARTLY * any(r['reduced']
                                         for r in results['featjnd'])), 79) +
            '\n',
            featjnd(results['featjnd'], task_metrics),
            FEATJND_PICTURE.format(
                metric=metric,
                picture=report_featjnd.picture_of(first['name'], metric)),
            *octaves(results['featjnd'])
        ]
    if results['quantization']:
        first = results['quantization'][0]
        parts += [
            QUANTIZATION.format(nats=report_quantization.targets_of(first)[0][1]),
            report_quantization.readme_table(results['quantization'],
                                             split_of),
            QUANTIZATION_PICTURE.format(
                metric=task_metrics(first)[0],
                picture=report_featjnd.picture_of(
                    first['name'], task_metrics(first)[0]))
        ]
    if old:
        note = OUTDATED.format(names=', '.join(old))
        parts.append(f'**{textwrap.fill(note, 76)}**\n')
    for result in results['dmv_jnd']:
        one = result['rows'][0]['metrics']
        parts += [
            textwrap.fill(
                DMV_JND.format(
                    tasks=sum(k.startswith('rca/') for k in one) - 1,
                    reduced=REDUCED if result['reduced'] else ''), 79) + '\n',
            dmv_jnd(result)
        ]
    return '\n'.join(parts)


def insert(text: str, tables: str) -> str:
    """Put the tables between the marks of a text.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'README.md must hold {BEGIN!r} and {END!r}')
    return f'{before}{BEGIN}\n{tables}\n{END}{after}'
