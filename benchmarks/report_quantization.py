"""The sections of docs/benchmarks.md on the bits of features and pictures, and
README's table of them."""
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from report_featjnd import estimate, picture_of

from mmfeatjnd.evaluation import codes, markdown_table

#: Largest shares of the bits of others: of one step and of clipping, of bases
#: without the task, of static steps.
STEP, BASIS, STATIC = 1 / 3, 0.8, 0.85
#: The same of raw tokens with one step, which is asked at a relative loss of
#: 2 % of mask detectors.
TOKENS = 0.8
#: The same of the best picture codec, by the data set's name in the results.
PICTURE = dict(quantization_in1k=1 / 6, quantization_coco=0.5,
               quantization_cifar10=0.5)
TEXT = """\
`task`, `lateral`, `pca-dct`, `dct`, `pca` and `uniform` are codes of
`tools/make_plan.py`, all with scales of training pictures and bytes counted
with their container; see
[quantization.md](quantization.md#plans-coding-in-the-tasks-own-metric).
`task-adapted` has steps that follow the picture, `task-adapted-permuted` the
same steps at other blocks. `clip-uniform` clips each image to the range of
least squared error with 2 to 64 bins. `jpeg`, `webp` and `avif` are the
picture through Pillow, as it is read or as the host takes it (resized or
cropped). Raw tokens are quantized as they are, with steps that are sent:
`featjnd` takes them from the learned map, as the root of what a token
tolerates, `permuted-steps` gives the same steps to other tokens of the image,
`token-map-static` takes them from the mean map of the training, `one-step` has
one step an image and level, `range` one a token, `water-filling` is optimal
for independent Gaussian channels, and `gradient` and `token-map-fisher`, which
need the whole host at the encoder, are references rather than codecs. Bits per
pixel are those of the picture as it is read. In brackets 95 % of a paired
bootstrap over the test images; < and >: beyond what was measured.
"""


def bits_of(result: dict, code: Tuple[str, str], metric: str, target: float,
            unit: str = 'per_pixel') -> Optional[dict]:
    """The bits of a code at a cost; None where they are not known."""
    for row in result['comparisons']['bits']:
        if ((row['place'], row['code']) == code
                and (row['metric'], row['target']) == (metric, target)):
            return row[unit]
    return None


def shown(bits: Optional[dict], interval: bool = False) -> str:
    """Bits in a table."""
    if bits is None:
        return '?'
    sign = f'{bits["relation"]} ' if bits['relation'] else ''
    text = f'{sign}{bits["value"]:.3g}'
    if interval and not sign:
        text += f' [{bits["low"]:.3g}, {bits["high"]:.3g}]'
    return text


def targets_of(result: dict) -> List[Tuple[str, float]]:
    """Where codes are compared: metric and target."""
    return list(dict.fromkeys(
        (r['metric'], r['target']) for r in result['comparisons']['bits']))


def named(metric: str, target: float) -> str:
    if metric == 'kl':
        return f'{target:g} nats'
    return f'{target:.0%} of `{metric}`'


def codes_of(result: dict) -> List[Tuple[str, str]]:
    return list(dict.fromkeys(
        (r['place'], r['code']) for r in result['comparisons']['bits']))


def has_pictures(result: dict) -> bool:
    return any(code in codes.PICTURES for _, code in codes_of(result))


def best_picture(result: dict, metric: str,
                 target: float) -> Optional[Tuple[str, str]]:
    """The picture codec of the fewest bits at a cost."""
    found = {}
    for key in codes_of(result):
        bits = bits_of(result, key, metric, target)
        if key[1] in codes.PICTURES and bits and bits['relation'] != '>':
            found[key] = bits['value']
    return min(found, key=lambda k: found[k]) if found else None


def ratio_of(result: dict, ours, theirs, metric: str,
             target: float) -> Optional[Sequence[Optional[float]]]:
    """Our bits over theirs, [value, low, high]."""
    for row in result['comparisons']['times']:
        if (tuple(row['ours']), tuple(row['theirs'])) == (ours, theirs) and (
                row['metric'], row['target']) == (metric, target):
            return row['ratio']
    return None


def _goals(result: dict) -> List[tuple]:
    """What is asked: our code, theirs, and the largest share."""
    found = []
    known = codes_of(result)
    first = known[0][0]
    for other, most in (('uniform', STEP), ('clip-uniform', STEP),
                        ('pca-dct', BASIS), ('lateral', BASIS)):
        if (first, other) in known:
            found.append(((first, 'task'), (first, other), most))
    for place, code in known:
        if code == 'task-adapted':
            found.append(((place, code), (place, 'task'), STATIC))
    ours, theirs = ('tokens', 'featjnd'), ('tokens', 'one-step')
    if ours in known and theirs in known:
        found.append((ours, theirs, TOKENS))
    return found


def goals(result: dict) -> str:
    """Table of the goals at every cost."""
    targets = targets_of(result)
    lines = []
    for ours, theirs, most in _goals(result):
        cells = [f'`{ours[1]}` over `{theirs[1]}`, {ours[0]}: '
                 f'at most {most:.2f}']
        for at in targets:
            cells.append(_met(ratio_of(result, ours, theirs, *at), most))
        lines.append(cells)
    most = PICTURE.get(result['name'])
    for place, code in codes_of(result):
        if code not in ('task', 'task-adapted') or not has_pictures(result):
            continue
        cells = [f'`{code}`, {place}, over the best picture codec'
                 + (f': at most {most:.2f}' if most else '')]
        for at in targets:
            best = best_picture(result, *at)
            ratio = best and ratio_of(result, (place, code), best, *at)
            cells.append(_met(ratio, most) +
                         (f' ({codes.label_of(*best)})' if best else ''))
        lines.append(cells)
    return markdown_table(['bits over bits', *(named(*t) for t in targets)],
                          lines)


def _met(ratio: Optional[Sequence[Optional[float]]],
         most: Optional[float]) -> str:
    if ratio is None:
        return '?'
    text = estimate(ratio, '.2f')
    if most is None:
        return text
    return text + (', yes' if ratio[0] <= most else ', no')


def bits_table(result: dict, unit: str) -> str:
    """Bits of every code at every cost."""
    targets = targets_of(result)
    lines = []
    for key in codes_of(result):
        found = [bits_of(result, key, *at, unit) for at in targets]
        if any(found):
            lines.append([codes.label_of(*key), *map(shown, found)])
    return markdown_table(['code', *(named(*t) for t in targets)], lines)


def asked_table(rows: Sequence[dict]) -> str:
    """Nats asked of the plans, against those measured on the test images."""
    by_split: Dict[str, List[dict]] = {}
    for row in rows:
        if row.get('policy') == 'task':
            by_split.setdefault(row['split'], []).append(row)
    lines = []
    for split, found in by_split.items():
        found = sorted(found, key=lambda r: r['expected_nats'])
        lines.append([split, ', '.join(
            f'{r["expected_nats"]:.3g}: {r["metrics"]["kl"]:.3g}'
            for r in found)])
    return markdown_table(['split', 'nats asked: nats measured'], lines)


def equal_noise_table(result: dict) -> str:
    """What steps of raw tokens cost at the same noise on every image."""
    lines = []
    for row in result['comparisons'].get('equal_noise', ()):
        apart = row['difference']
        kl = row['metric'] == 'kl'
        spec, unit = ('.3g', '') if kl else ('.1%', ' of it')
        lines.append([
            f'{row["nrmse"]:g}', 'nats' if kl else f'`{row["metric"]}`{unit}',
            estimate(row['ours'], spec), f'`{row["best_control"]}`',
            estimate(row['control'], spec),
            estimate(apart, spec) + (', yes' if apart[0] > 0 else ', no')])
    return markdown_table(['NRMSE', 'lost', 'by `featjnd`', 'control',
                           'by the control', 'less by `featjnd`'], lines)


def readme_table(results: Sequence[dict], named_split: Callable) -> str:
    """Bits per pixel where the answer is as far from the clean one.

    Args:
        results (Sequence[dict]): Results.
        named_split (Callable): Function from a result and a split to what
            they are called.
    """
    lines = []
    for result in results:
        target = targets_of(result)[0]
        best = best_picture(result, *target)
        for split in result['macs']:
            ours = ours_at(result, split, target)
            if ours is None:
                continue
            ratio = best and ratio_of(result, ours, best, *target)
            lines.append([
                named_split(result, split),
                f'**{shown(bits_of(result, ours, *target), True)}**',
                *(shown(bits_of(result, (split, n), *target))
                  for n in ('pca-dct', 'uniform')),
                'not measured' if best is None else
                f'{shown(bits_of(result, best, *target))} '
                f'({codes.label_of(*best)})',
                '?' if ratio is None else estimate(ratio, '.2f')])
    return markdown_table(
        ['host, data, split', "in the task's metric", 'PCA and DCT',
         'one step', 'the picture', 'times the picture'], lines)


def ours_at(result: dict, split: str, target) -> Optional[Tuple[str, str]]:
    """Our code of a split: with steps that follow the picture, where these
    were measured."""
    known = codes_of(result)
    found = [(split, n) for n in ('task-adapted', 'task')
             if (split, n) in known and bits_of(result, (split, n), *target)]
    return found[0] if found else None


def bd_table(result: dict) -> str:
    lines = [[codes.label_of(*row['ours']), codes.label_of(*row['theirs']),
              f'{row["percent"]:+.1f} %']
             for row in result['comparisons']['bd_rate']
             if row['percent'] is not None]
    return markdown_table(['code', 'against', 'BD-rate'], lines)


def guide(result: dict) -> str:
    """Where features are cheaper than the picture."""
    target = targets_of(result)[0]
    best = best_picture(result, *target)
    lines = []
    for split, (before, after) in result['macs'].items():
        code = ours_at(result, split, target)
        if code is None:
            continue
        ratio = best and ratio_of(result, code, best, *target)
        lines.append([
            f'`{split}`',
            f'{before / 1e6:,.0f} ({before / (before + after):.0%})',
            f'{after / 1e6:,.0f}', code[1],
            shown(bits_of(result, code, *target), True),
            '?' if ratio is None else estimate(ratio, '.2f'),
            '?' if ratio is None else 'features' if ratio[0] < 1 else
            'the picture'
        ])
    picture = '?' if best is None else (
        f'{codes.label_of(*best)}, '
        f'{shown(bits_of(result, best, *target))} bits per pixel')
    return (f'Which is cheaper at {named(*target)}, the features or the '
            f'picture (the best codec: {picture}):\n\n') + markdown_table([
                'split', 'MMACs before', 'MMACs after', 'code',
                'bits per pixel', 'times the picture', 'cheaper'], lines)


def plotted(result: dict) -> List[dict]:
    """Rows of the picture: all of the first split, else ours, and of raw
    tokens the learned map and one step."""
    first = next(iter(result['macs']))

    def shows(row: dict) -> bool:
        place = row.get('split') or row.get('place')
        if place in (None, first) or row['policy'] in codes.PICTURES:
            return True
        return row['policy'] in (('featjnd', 'one-step') if place == 'tokens'
                                 else ('task', 'task-adapted'))

    return [row for row in result['rows'] if shows(row)]


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
    parts = [*head, TEXT]
    if result['objects'] != 1:
        parts.append(f'Nats are those of an annotated object, of which an '
                     f'image has {result["objects"]:.1f}.\n')
    for metric in task_metrics:
        picture = picture_of(name, metric)
        if images is not None:
            codes.plot(plotted(result), images / picture, metric)
        parts.append(f'![Nats and {metric} against bits per pixel]'
                     f'(images/{picture})\n')
    if has_pictures(result):
        parts.append(guide(result))
    else:
        parts.append('The picture itself was not coded in this run.\n')
    parts += ['Bits per pixel:\n', bits_table(result, 'per_pixel'),
              'Bits per element of the features:\n',
              bits_table(result, 'per_element'),
              'Times the bits of others, and whether the goal is met:\n',
              goals(result),
              'Nats of an image that a plan promises, by its training '
              'pictures, and what the test images came to:\n',
              asked_table(result['rows'])]
    if result['comparisons'].get('equal_noise'):
        parts += ['What steps of raw tokens cost at equal noise, the '
                  "paper's protocol:\n", equal_noise_table(result)]
    parts += ['BD-rate, the mean over equal nats:\n', bd_table(result)]
    return '\n'.join(parts)


def cost_section(result: dict, provenance: str) -> str:
    """What sender and receiver take."""
    lines = [[
        row['host'], row['split'], f'{row["bytes"]:,.0f}',
        *(f'{row[name + "_ms"]:.1f}' for name in (
            'host', 'sender', 'encode', 'encoder', 'receiver', 'decode',
            'decoder')),
        f'{row["code_share"]:.1%}' +
        (', yes' if row['code_share'] <= 0.1 else ', no'),
        f'{row["megabytes_per_second"]:.1f}' +
        (', yes' if row['megabytes_per_second'] >= 5 else ', no')
    ] for row in result['rows']]
    first = result['rows'][0]
    return '\n'.join([
        '## Cost of the codec\n', f'Claim: {result["claim"]}\n',
        f'Medians over {first["pictures"]} pictures, one at a time, '
        f'milliseconds, on {first["threads"]} threads. Sender and receiver '
        'are whole sides, from the picture file and to the prediction; code '
        'and entropy coder are parts of them. ' + provenance + '\n',
        markdown_table([
            'host', 'split', 'bytes', 'whole host', 'sender',
            'its code and coder', 'its coder', 'receiver',
            'its code and coder', 'its coder',
            "code of the host's forward, at most 10 %",
            'MB/s of features, at least 5'], lines)
    ])
