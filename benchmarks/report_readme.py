"""The tables of results in README.md."""
import textwrap
from typing import Callable, Dict, List

from report_dmv_jnd import mean, pick

from mmfeatjnd.evaluation import (
    clean_metrics,
    cost_ratios,
    markdown_table,
    rate,
    tolerated_ratio,
)

BEGIN = '<!-- written by benchmarks/report.py: begin -->\n'
END = '<!-- written by benchmarks/report.py: end -->\n'
TITLES = dict(
    featjnd='FeatJND', quantization='quantization', dmv_jnd='DMV-JND')
STRENGTHS = (0.5, 1.0, 1.5)
OUTDATED = """\
Measured on a part of the test images, and before the faults of 0.1.0 in noise,
clipping baselines, seeds and bits per element were mended, and kept until it
is measured anew: {names}.
"""
FEATJND = """\
What the FeatJND distortion costs of the task metric, as a share of what
Gaussian noise of equal NRMSE costs (0 is nothing, negative: better than clean;
empty where Gaussian noise costs less than 2 %), and how many times its NRMSE
it may have at a relative loss of 1 %. Mean over {seeds} estimators.
"""
FEATJND_PICTURE = """\
![Mask mAP on DSB2018 against the NRMSE of the features, for all distortions]\
(docs/images/featjnd_dsb2018_segm_mAP.png)
"""
QUANTIZATION = """\
Coded bits per feature element, side information included, at a relative loss
of 1 %, and what FeatJND saves against one step and against clipping to the
best number of levels (goal: 20 %). Mean ± standard deviation over {seeds}
estimators; < and >: beyond what was measured; ?: not known.
"""
QUANTIZATION_PICTURE = """\
![Top-1 on CIFAR-10 against coded bits per element, for all policies]\
(docs/images/quantization_cifar10_top1_rate.png)
"""
DMV_JND = """\
DMV-JND on CIFAR-10: how many test images keep the label of the classifiers
(RCA, mean of {tasks}), with the JND and with white noise of its power.
{reduced}The paper has 92.18 % at 9.56 dB; the goal is 95 %.
"""
REDUCED = """\
Reduced: narrow classifiers, a short training, a part of the images.
"""
Results = List[dict]


def split_of(result: dict) -> str:
    return (f'`{result["host"]}`, {result["dataset"]}, '
            f'`{result["split_point"]}`')


def seeds(results: Results) -> str:
    """How many, in words that a table can be read by."""
    numbers = {len({r['seed'] for r in x['rows']}) for x in results}
    return ' or '.join(str(n) for n in sorted(numbers))


def featjnd(results: Results, task_metrics: Callable) -> str:
    lines = []
    for result in results:
        rows = result['rows']
        for metric in task_metrics(result):
            shares = cost_ratios(rows, metric=metric)
            lines.append([
                split_of(result),
                f'`{metric}` {clean_metrics(rows)[metric]:.4g}',
                *(f'{shares[s]:.2f}' if s in shares else ''
                  for s in STRENGTHS),
                f'{tolerated_ratio(rows, metric=metric):.1f}'
            ])
    return markdown_table([
        'host, data, split', 'metric, clean',
        *(f'at NRMSE {s:g}' for s in STRENGTHS), 'NRMSE tolerated, times'
    ], lines)


def quantization(results: Results, task_metrics: Callable) -> str:
    lines = []
    for result in results:
        rows = result['rows']
        for metric in task_metrics(result):
            clipping = rate.best_policy(rows, 'clip-uniform', metric=metric)
            policies = ('featjnd', 'one-step', clipping or 'clip-uniform')
            lines.append([
                split_of(result), f'`{metric}`',
                *(f'{rate.bits_at_loss(rows, name, metric=metric):.2f}'
                  for name in policies),
                *(f'{rate.savings(rows, reference=name, metric=metric):.1%}'
                  for name in policies[1:])
            ])
    return markdown_table([
        'host, data, split', 'metric', 'FeatJND', 'one step', 'clipping',
        'saved against one step', 'against clipping'
    ], lines)


def dmv_jnd(result: dict) -> str:
    names = dict(clipped='clipped to an image', unclipped='as printed')
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
        ['x + e', 'PSNR (dB)', 'RCA, JND (%)', 'RCA, white noise (%)'], lines)


def tables(results: Dict[str, Results], task_metrics: Callable,
           outdated: Callable) -> str:
    """All tables with what they need to be read.

    Args:
        results (dict[str, list[dict]]): By the kind of benchmark.
        task_metrics (Callable): From a result to the metrics to show.
        outdated (Callable): Whether a result is of an earlier protocol.
    """
    parts = []
    old = [
        f'{TITLES[kind]} on {result["dataset"]}'
        for kind, found in results.items() for result in found
        if outdated(result)
    ]
    if old:
        note = OUTDATED.format(names=', '.join(old))
        parts.append(f'**{textwrap.fill(note, 76)}**\n')
    if results['featjnd']:
        parts += [
            FEATJND.format(seeds=seeds(results['featjnd'])),
            featjnd(results['featjnd'], task_metrics), FEATJND_PICTURE
        ]
    if results['quantization']:
        parts += [
            QUANTIZATION.format(seeds=seeds(results['quantization'])),
            quantization(results['quantization'], task_metrics),
            QUANTIZATION_PICTURE
        ]
    for result in results['dmv_jnd']:
        one = result['rows'][0]['metrics']
        parts += [
            DMV_JND.format(
                tasks=sum(k.startswith('rca/') for k in one) - 1,
                reduced=REDUCED if result['reduced'] else ''),
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
