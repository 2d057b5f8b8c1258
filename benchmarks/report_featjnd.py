"""The sections of docs/benchmarks.md on where noise costs the least."""
import textwrap
from pathlib import Path
from typing import List, Optional, Sequence

from mmfeatjnd.evaluation import better_when, curve, markdown_table

#: The best control's loss where a goal counts, and the shares of it and of
#: white noise's loss that the learned map may cost.
RANGE = (0.02, 0.2)
SHARE, SHARE_OF_WHITE = 0.5, 0.25
#: How many times the static map's gain over white noise, on classifiers.
TIMES = 2
UNIT, PAPERS_UNIT, VISIBLE_UNIT = 'channel', 'rms', 'visible'
PANELS = {False: 'any features', True: 'features kept valid'}
ORDER = ('gaussian', 'level-gain', 'static', 'other-image', 'permuted',
         'featjnd', 'fisher', 'gradient-sensitivity', 'feature-energy',
         'outside-boxes', 'null-space', 'lateral', 'closed-form')
HEADER = """\
Noise is put into the features at a split, the same for all maps but for where:
each image gets noise of the same RMS, in standard deviations of the channels
and over all levels together, and none where it is padded. `gaussian` puts it
everywhere alike, `featjnd` where the learned map says. Four controls know less
of the image: `level-gain` has one number a level, `static` is the mean map
of the training pictures, `other-image` the learned map of one of them,
`permuted` the learned map with its tokens permuted. Others are references,
measured once: `fisher` and `gradient-sensitivity` ask the rest of the host for
its gradient on the very image, by token and by element, `outside-boxes` for
its detections; `feature-energy` puts noise where features are weak;
`null-space`, `lateral` and `closed-form` choose directions in channel space:
what the rest of the host does not see, and noise of the inverse of the metric
of the layers that read the split, or of the task. `kl` is
how far the host's answer is from its clean one, in nats, mean over the images.

Goal: at every strength at which the best control loses 2 to 20 % of the task
metric, the learned map loses at most half of that and a quarter of what white
noise costs, for detectors; on classifiers it tolerates, at 0.02 nats, at least
twice as many octaves more than white noise as `static` does. Both with any
features, and with features kept in the range that the split has (`valid`, such
as >= 0 behind a ReLU; the strength is matched after that). Intervals are 95 %
of a paired bootstrap over the test images; ± is the standard deviation over
the seeds, which are those of the estimators' training and of the noise.
"""
COMPARED = (
    'What is lost, {unit}, with [95 % interval]; share: what the learned map '
    'loses over what the best control loses; ?: without a bound. {goal}')
GOAL = (
    'Goal: a share of at most {share:g}, and {white:g} of white, where the '
    'best control loses 2 to 20 % of `{metric}`. yes: with the whole '
    'intervals; by the values: not with the whole intervals.')
VISIBLE = """\
### By what the rest of the host sees

The NRMSE of each image and level in the head, of feature and noise projected
onto the directions that the rest of the host sees: eigenvectors of the task
metric above a thousandth of its largest eigenvalue. So noise in the null space
counts for nothing. `closed-form` is noise of the inverse task metric,
`lateral` the same of W^T W of the layers that read the split.
"""
SIGNED = """\
### The signed map of the paper

`featjnd-signed` has a direction of its own for every element, and
`static-learned` is one learned tensor for all images in its place. The NRMSE
of each image and level in the head.
"""
BEFORE = """\
## What was published before, and why it changed

Version 0.1.0 of this page said that the learned *signed* map costs the task
0.00 to 0.01 of what Gaussian noise of equal NRMSE costs. That was measured,
and it was empty. In a trial outside of these scripts, on ResNet-18 of half
width, CIFAR-10, `layer2`, at NRMSE 1.5, top-1 fell by

| distortion | points |
|---|---|
| Gaussian noise | 13.55 |
| the signed map | 0.45 |
| one learned tensor for all images | 0.50 |
| the signed map of another image | 1.70 |

so the map said next to nothing of the image that it was made for: 92 % of the
maps' energy was their mean over the images. Noise in the null space of the
next layer costs 0.00 at any NRMSE: low cost at a high NRMSE alone means
nothing. And with features kept >= 0, as features behind a ReLU are, the
advantage was gone: 20.20 points against 20.20. So those tables are withdrawn.
In their place stand, above, maps that only say *where* noise goes, against
maps that know less; see
[featjnd.md](featjnd.md#what-was-published-before-and-why-it-changed).
"""
WAITING = """\
Still to be measured in the new way, so that no figure of them stands here:
{names}.
"""


def metrics_of(result: dict, task_metrics: Sequence[str]) -> List[str]:
    """Those of the task, and the nats if they were measured."""
    known = any('kl' in row['metrics'] for row in result['rows'])
    return [*task_metrics, *['kl'] * known]


def number(value: Optional[float], spec: str) -> str:
    return '?' if value is None else f'{value:{spec}}'


def as_nats(value: Optional[float]) -> str:
    return number(value, '.3g' if value is None or abs(value) < 100 else ',.0f'
                  )


def estimate(values: Optional[Sequence], spec: str, scale: float = 1) -> str:
    """A value with its interval; None where it has no end, or is not
    known."""
    if values is None:
        return 'not measured'
    value, low, high = (number(None if v is None else scale * v, spec)
                        for v in values)
    return f'{value} [{low}, {high}]'


def loss(values: Optional[Sequence], metric: str) -> str:
    """What is lost: percent of the clean metric, or nats."""
    if better_when(metric) == 'lower' and values is not None:
        value, low, high = map(as_nats, values)
        return f'{value} [{low}, {high}]'
    return estimate(values, '.1f', 100)


def share_of_white(row: dict) -> Sequence[Optional[float]]:
    """The learned map's loss over that of white noise, [value, low, high]."""
    if row.get('share_of_reference') is not None:
        return row['share_of_reference']
    white = row['reference']
    if white is None or not white[0]:
        return [None] * 3
    # both ends at their worst: wider than that of the share itself
    most = row['ours'][2] / white[1] if white[1] > 0 else None
    return [row['ours'][0] / white[0], None, most]


def goal_of(row: dict) -> str:
    """Whether the learned map costs as little as it is to cost."""
    shares = [(row['share'], SHARE), (share_of_white(row), SHARE_OF_WHITE)]

    def within(i: int) -> bool:
        return all(v[i] is not None and v[i] <= most for v, most in shares)

    if not within(0):
        return 'no'
    return 'yes' if within(2) else 'by the values'


def strengths_that_count(compared: Sequence[dict]) -> set:
    """Setting and strength where the best control's loss is in range."""
    return {(r['definition'], r['valid'], r['nrmse']) for r in compared
            if RANGE[0] <= r['control'][0] <= RANGE[1]}


def comparison(compared: Sequence[dict], metric: str, headline: str,
               counts: Optional[set]) -> str:
    """The table of the learned map against the best control.

    Args:
        compared (Sequence[dict]): What ``comparisons`` of a result holds of
            the metric.
        metric (str): Name of the metric.
        headline (str): That of the metric which says where the goal counts.
        counts (set, optional): :func:`strengths_that_count` of it; None
            where there is no such goal.
    """
    lines = []
    for row in compared:
        key = row['definition'], row['valid'], row['nrmse']
        cells = [
            f'{row["nrmse"]:g}' + (', valid' if row['valid'] else ''),
            loss(row['reference'], metric), f'`{row["best_control"]}`',
            loss(row['control'], metric), loss(row['ours'], metric),
            estimate(row['share'], '.2f'),
            number(share_of_white(row)[0], '.2f')
        ]
        if counts is not None:
            cells.append(goal_of(row) if key in counts else '')
        lines.append(cells)
    nats = better_when(metric) == 'lower'
    text = COMPARED.format(
        unit='nats' if nats else f'percent of the clean `{metric}`',
        goal='' if counts is None else GOAL.format(
            metric=headline, share=SHARE, white=SHARE_OF_WHITE))
    titles = ['RMS', 'white noise', 'best control', 'it loses', 'learned map',
              'share', 'share of white'] + ['goal'] * (counts is not None)
    return textwrap.fill(text, 79) + '\n\n' + markdown_table(titles, lines)


def octaves(result: dict, name: str, valid: bool) -> Optional[Sequence]:
    """How many octaves more than white noise a map tolerates: [value, low,
    high], or None."""
    for row in result.get('comparisons', {}).get('octaves_at_nats', ()):
        if (row['distortion'], row['valid']) == (name, valid):
            return row['octaves']
    return None


def octaves_goal(result: dict, valid: bool) -> str:
    """The learned map's gain against that of the static one."""
    ours, static = (octaves(result, n, valid) for n in ('featjnd', 'static'))
    if ours is None or static is None:
        return 'not known'
    met = 'yes' if ours[0] >= TIMES * static[0] else 'no'
    if static[0] <= 0:
        return f'{met} (static: nothing gained)'
    return f'{met} ({ours[0] / static[0]:.1f} times)'


def gained(result: dict, name: str, valid: bool) -> str:
    """How many octaves more than white noise a map tolerates, in words."""
    rows = [row for row in result['rows'] if row['distortion'] == name
            and row.get('definition') == UNIT and row.get('valid') == valid]
    found = octaves(result, name, valid)
    if found is not None:
        return f'{estimate(found, "+.2f")}, {2 ** found[0]:.2f} times'
    if not rows:
        return 'not measured'
    if name == 'gaussian':
        return '0'
    if not any(row['nrmse_measured'] for row in rows):
        return 'there is none'
    return 'beyond what was measured'


def octaves_section(result: dict) -> List[str]:
    """The noise that is tolerated at some nats; nothing of hosts for which
    that was not in reach."""
    rows = result.get('comparisons', {}).get('octaves_at_nats', ())
    if all(row['octaves'] is None for row in rows):
        return []
    names = dict.fromkeys(['gaussian', *(r['distortion'] for r in rows)])
    lines = [[f'`{name}`', *(gained(result, name, valid) for valid in PANELS)]
             for name in names]
    lines.append([
        f'goal: `featjnd` at least {TIMES} times `static`',
        *(octaves_goal(result, valid) for valid in PANELS)
    ])
    freed = {row['distortion']: row['bits']
             for row in result['comparisons'].get('volume_at_nats', ())}
    for line, name in zip(lines, names):
        bits = freed.get(name)
        line.append('' if bits is None else estimate(bits, '.3f'))
    lines[-1].append('')
    return [
        f'### Noise tolerated at {rows[0]["nats"]:g} nats\n',
        'In octaves (log2 of the RMS) more than white noise, and its volume: '
        'the bits per element that it frees, with [95 % interval]; ?: without '
        'a bound.\n',
        markdown_table(['map', *PANELS.values(), 'bits freed'], lines)
    ]


def curves(result: dict, unit: str) -> dict:
    """The rows in a unit of strength, by their panel."""
    rows = result['rows']
    names = dict.fromkeys(
        [*ORDER, *(r['distortion'] for r in rows)] if unit != PAPERS_UNIT else
        [*('gaussian', 'featjnd-signed', 'static-learned'),
         *(r['distortion'] for r in rows)])
    return {
        title: curve.rows_of(rows, unit, valid, list(names))
        for valid, title in PANELS.items()
        if (unit, valid) in curve.settings_of(rows)
    }


def off(rows: Sequence[dict]) -> str:
    """How far the strengths that were measured are from those asked."""
    share = max((abs(r['nrmse_measured'] / r['nrmse'] - 1)
                 for r in rows if r['nrmse']), default=0.0)
    if share < 0.001:
        return 'measured as asked'
    return f'measured within {share:.1%} of what was asked'


def picture_of(name: str, metric: str) -> str:
    return f'{name}_{metric.split("/")[-1]}.png'


def section(name: str, result: dict, head: List[str],
            task_metrics: Sequence[str], images: Optional[Path]) -> str:
    """The section of a result.

    Args:
        name (str): Its name.
        result (dict): It.
        head (list[str]): What the section begins with.
        task_metrics (Sequence[str]): The metrics of the task to show.
        images (Path, optional): Where to draw the pictures; None to draw
            none.
    """
    panels = curves(result, UNIT)
    compared = result.get('comparisons', {})
    parts = list(head)
    counts = None
    if 'accuracy/top1' not in result['clean'] and task_metrics:
        counts = set()
    for metric in metrics_of(result, task_metrics):
        picture = picture_of(name, metric)
        if images is not None:
            curve.plot_losses(panels, images / picture, metric)
        # nats count where the first metric of the task says so
        headline = metric if metric in task_metrics else task_metrics[0]
        if counts is not None:
            counts = strengths_that_count(compared.get(headline, ()))
        unit = 'nats' if metric == 'kl' else 'clean {:.4g}'.format(
            result['clean'][metric])
        parts += [f'### {metric}\n',
                  f'![What is lost of {metric}, against the strength of the '
                  f'noise](images/{picture})\n']
        for title, rows in panels.items():
            parts += [f'`{metric}` ({unit}), {title}; RMS in the head, '
                      f'{off(rows)}:\n',
                      curve.strength_table(rows, metric)]
        if compared.get(metric):
            parts.append(
                comparison(compared[metric], metric, headline, counts))
    parts += octaves_section(result)
    for unit, text in ((VISIBLE_UNIT, VISIBLE), (PAPERS_UNIT, SIGNED)):
        found = curves(result, unit)
        if not found:
            continue
        parts.append(text)
        for metric in metrics_of(result, task_metrics):
            for title, rows in found.items():
                parts += [f'`{metric}`, {title}; {off(rows)}:\n',
                          curve.strength_table(rows, metric)]
    return '\n'.join(parts)


def before(waiting: Sequence[str]) -> str:
    """What was published before.

    Args:
        waiting (Sequence[str]): Data sets of which there is nothing newer.
    """
    if not waiting:
        return BEFORE
    return BEFORE + '\n' + WAITING.format(names=', '.join(waiting))
