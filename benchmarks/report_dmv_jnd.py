"""The section on DMV-JND in docs/benchmarks.md."""
import statistics
from typing import Dict, List

from mmfeatjnd.evaluation import markdown_table

Rows = List[Dict]
PAPER_PSNR = 9.56
ABOUT = """\
Goal: the classifiers keep their labels on at least 95 % of the test images
with a PSNR of 9.56 dB or less, and lose them to white noise of that power.

`clipped`: x + e is an image, and e what remains of it. `unclipped`: x + e as
the paper prints it. Both with the centred reading of Loss3. Mean ±
standard deviation over the seeds of the training. The target N
of the magnitude sets the PSNR; it is the paper's, 1 - mean(c), and for the
curve a multiple of it. It depends on the maps: a coarse one, stretched to
[0, 1], has a mean of about a half. Noise and controls have the mean squared
error of the JND on every image: `gaussian` is the paper's WGN, `random-sign`
gives every value of e a random sign, `sign-flipped` is -e. All trainings are
in mixed precision; x + e is not rounded to 8 bits.
"""


def pick(rows: Rows, **wanted) -> Rows:
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def mean(rows: Rows, metric: str, spec: str = '.2f') -> str:
    """The mean over the seeds, with their spread."""
    if not rows:
        return 'not measured'
    values = [r['metrics'][metric] for r in rows]
    text = format(statistics.mean(values), spec)
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):{spec}}'
    return text


def tasks(rows: Rows) -> List[str]:
    return [
        k.partition('/')[2] for k in rows[0]['metrics']
        if k.startswith('rca/') and k != 'rca/mean'
    ]


def classifiers(rows: Rows) -> str:
    jnd = pick(rows, distortion='dmv-jnd', strength=1.0, split='test')
    one = jnd[0]['metrics']
    return markdown_table(
        ['classifier', 'accuracy on clean test images (%)'],
        [[f'`{name}`', f'{one[f"accuracy_clean/{name}"]:.2f}']
         for name in tasks(jnd)])


def goals(rows: Rows, variants: List[str], first: int) -> str:
    """The paper's figures, the goals, and what was measured."""

    def cells(split: str, distortion: str, metric: str) -> List[str]:
        return [
            mean(
                pick(
                    rows,
                    variant=variant,
                    scale=1.0,
                    split=split,
                    distortion=distortion,
                    strength=1.0), metric) for variant in variants
        ]

    def individual(split: str) -> List[str]:
        names = tasks(rows)
        columns = [cells(split, 'dmv-jnd', f'rca/{name}') for name in names]
        return [
            ' / '.join(c.split(' ')[0] for c in column)
            for column in zip(*columns)
        ]

    points = pick(curve(rows, first), distortion='dmv-jnd')
    lines = [
        ['training RCA, mean of the tasks (%)', '100', '100'] +
        cells('train', 'dmv-jnd', 'rca/mean'),
        ['test RCA, mean of the tasks (%)', '92.18', 'at least 95'] +
        cells('test', 'dmv-jnd', 'rca/mean'),
        ['test RCA of each (%)', '91.17 / 93.03 / 93.48 / 91.05', ''] +
        individual('test'),
        ['PSNR, test (dB)', '9.56', 'at most 9.56'] +
        cells('test', 'dmv-jnd', 'psnr'),
        ['N0, test', '', 'N'] + cells('test', 'dmv-jnd', 'jnd_magnitude'),
        ['N, test', '', ''] + cells('test', 'dmv-jnd', 'jnd_target'),
        ['training RCA under WGN (%)', '15.5', 'reported'] +
        cells('train', 'gaussian', 'rca/mean'),
        *([f'test RCA, {name} (%)', '', 'reported'] +
          cells('test', name, 'rca/mean')
          for name in ('gaussian', 'random-sign', 'sign-flipped')),
        ['test RCA at 9.56 dB, from the curve (%)', '92.18', 'at least 95'] +
        [rca_at(pick(points, variant=v), PAPER_PSNR) for v in variants],
    ]
    return markdown_table(['figure', 'paper', 'goal', *variants], lines)


def homogeneity(rows: Rows) -> str:
    rows = pick(rows, distortion='dmv-jnd', scale=1.0)
    strengths = sorted({r['strength'] for r in rows}, reverse=True)
    variants = list(dict.fromkeys(
        r['variant'] for r in rows if r['strength'] < 1))
    header = ['part of the JND'] + [
        f'{variant}, {split}' for variant in variants
        for split in ('train', 'test')
    ]
    lines = [[f'{round(9 * s)}/9'] + [
        mean(
            pick(rows, variant=variant, split=split, strength=s), 'rca/mean')
        for variant in variants for split in ('train', 'test')
    ] for s in strengths]
    return markdown_table(header, lines)


def curve(rows: Rows, first: int) -> Rows:
    """The tolerance curve on the test images, of the first seed, with which
    all scales are trained."""
    rows = [
        r for r in pick(rows, split='test', strength=1.0, seed=first)
        if r['distortion'] in ('dmv-jnd', 'gaussian')
    ]
    names = {'dmv-jnd': 'JND', 'gaussian': 'WGN'}
    return [
        dict(r, series=f'{names[r["distortion"]]}, {r["variant"]}')
        for r in rows
    ]


def curve_table(rows: Rows) -> str:
    lines = []
    for row in sorted(
            pick(rows, distortion='dmv-jnd'),
            key=lambda r: (r['variant'], r['scale'])):
        m = row['metrics']
        noise, = pick(rows, distortion='gaussian', variant=row['variant'],
                      scale=row['scale'])
        lines.append([
            row['variant'], f'{row["scale"]:g}', f'{m["jnd_target"]:.3f}',
            f'{m["jnd_magnitude"]:.3f}', f'{m["psnr"]:.2f}',
            f'{m["rca/mean"]:.2f}', f'{noise["metrics"]["rca/mean"]:.2f}'
        ])
    return markdown_table(['', 'scale', 'N', 'N0', 'PSNR (dB)', 'RCA (%)',
                  'RCA under WGN (%)'], lines)


CODEC = """\
Blocks of 8x8 pixels with steps of twice their mean JND times a scale
(`dmv-jnd`), with one step for all (`uniform`), and JPEG (4:4:4, without
headers). `dmv-jnd` and `uniform` share streams of {batch} images, all side
information counted. `{variant}`, one seed.
"""


def codec_table(rows: Rows) -> str:
    lines = [[
        f'`{r["codec"]}`', f'{r["setting"]:g}', f'{r["bytes"]:.0f}',
        f'{r["metrics"]["psnr"]:.2f}', f'{r["metrics"]["rca/mean"]:.2f}'
    ] for r in rows]
    return markdown_table(
        ['codec', 'scale, step or quality', 'bytes an image', 'PSNR (dB)',
         'RCA (%)'], lines)


UNSEEN = """\
Test accuracy of `{host}`, which the JND was not trained for, on these images,
by way of `DMVJNDPreprocessor`. `{variant}`, one seed.
"""


def unseen_table(rows: Rows) -> str:
    return markdown_table(['images', 'accuracy (%)'],
                 [[r['distortion'], f'{r["metrics"]["accuracy/top1"]:.2f}']
                  for r in rows])


def share(every: int, split: str) -> str:
    if every == 1:
        return f'all {split} images'
    return f'one {split} image in {every}'


def rca_at(rows: Rows, psnr: float) -> str:
    """RCA at a PSNR, linear between the points of a curve."""
    points = sorted((r['metrics']['psnr'], r['metrics']['rca/mean'])
                    for r in rows)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= psnr <= x1:
            return f'{y0 + (y1 - y0) * (psnr - x0) / (x1 - x0):.2f}'
    reached = f'{points[0][0]:.2f} to {points[-1][0]:.2f} dB'
    return f'not measured ({reached})'


def trained_on(result: dict) -> str:
    """What the JND saw in its training."""
    if 'estimator_draws' not in result:
        return 'all training images; how many it drew is not recorded'
    return (f'{result["estimator_draws"]:,} draws of '
            f'{result["train_images"]:,} training images')


def section(result: dict, provenance: str, picture: str, note: str) -> str:
    """The section, from the published result.

    Args:
        result (dict): The result.
        provenance (str): Where it comes from.
        picture (str): Name of the picture of the curve.
        note (str): What else to say of it, or ''.
    """
    rows = result['rows']
    variants = list(dict.fromkeys(r['variant'] for r in rows))
    first = result['first_seed']
    return '\n'.join([
        f'## DMV-JND on {result["dataset"]}\n',
        f'Config `{result["config"]}`, trained on {trained_on(result)}. '
        f'Measured on {share(result["every"], "test")} and '
        f'{share(result["train_every"], "training")}.' +
        (' **Reduced: narrow classifiers, a short schedule.**'
         if result['reduced'] else '') + f' {provenance}\n',
        *([note] if note else []),
        ABOUT,
        classifiers(rows),
        goals(rows, variants, first),
        '### Homogeneity\n',
        'RCA in percent, mean of the tasks, with a part of the JND, of the '
        'first seed (section V-F of the paper; its 100 % is on training '
        'images).\n',
        homogeneity(pick(rows, seed=first)),
        '### Tolerance curve\n',
        f'![RCA against PSNR for several targets](images/{picture})\n',
        curve_table(curve(rows, first)),
        '### A classifier that was not asked\n',
        UNSEEN.format(host=result['unseen_host'], variant=variants[0]),
        unseen_table(result['unseen']),
        '### Quantized pixels\n',
        CODEC.format(variant=variants[0], batch=result['batch_size']),
        codec_table(result['codec']),
    ])
