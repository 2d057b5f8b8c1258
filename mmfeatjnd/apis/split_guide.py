"""Compare splits of a host: what is seen of them, and what they cost."""
from typing import List, Sequence

import torch
from mmengine.config import Config
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from mmfeatjnd.evaluation.rows import markdown_table
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models import neck_at
from mmfeatjnd.models.determined import tell_determined
from mmfeatjnd.models.necks import FeatJNDNeck
from .curve import OperationTest
from .data import split_dataloader
from .metric import TOLERANCES, metric_of, metric_rows


def count_macs(neck: FeatJNDNeck, loader: DataLoader) -> tuple:
    """Multiply-adds of a prediction on the first picture of a loader.

    Counted are convolutions, matrix products and attention, by PyTorch's
    ``FlopCounterMode``; operators that it does not know, such as deformable
    convolutions, count as nothing. Where a split has several levels, what
    runs until the last of them is there lies before it.

    Args:
        neck (FeatJNDNeck): It knows its host, which is in eval mode.
        loader (DataLoader): Pictures, as for a test.

    Returns:
        tuple[int, int]: Before and after the split.

    Example:
        >>> from mmfeatjnd.apis import build_runner
        >>> runner = build_runner(cfg)
        >>> neck = neck_at(runner.model.eval())
        >>> before, after = count_macs(neck, runner.test_dataloader)
        >>> before > 0, after > 0
        (True, True)
    """
    host = neck.host
    data = host.data_preprocessor(next(iter(loader)), False)
    inputs, samples = data['inputs'][:1], data.get('data_samples')
    counter = FlopCounterMode(display=False)
    before = 0

    def reached(feature, level):
        nonlocal before
        before = counter.get_total_flops()
        return feature

    with torch.no_grad(), neck.changing(reached), counter:
        adapter_of(host).predict(host, inputs, samples and samples[:1])
    # it counts a multiplication and an addition as two
    return before // 2, (counter.get_total_flops() - before) // 2


def guide_to_splits(cfg: Config,
                    checkpoint: str,
                    splits: Sequence[str],
                    images: int = 64,
                    draws: int = 2,
                    seed: int = 0) -> List[dict]:
    """What a split shows to the rest of the host, and what it costs.

    A good one for noise and for coding has little that nobody sees, few
    elements, and little to compute before it.

    Args:
        cfg (Config): Of a host, see :func:`estimate_metric`.
        checkpoint (str): The host's.
        splits (Sequence[str]): Split points, see
            :func:`mmfeatjnd.models.neck_at`.
        images (int): Number of training pictures. Defaults to 64.
        draws (int): Draws of the gradient for each. Defaults to 2.
        seed (int): See :func:`estimate_metric`. Defaults to 0.

    Returns:
        list[dict]: For each split ``split``, ``macs_before`` and
        ``macs_after`` the split of one picture, ``elements_per_pixel`` of all
        levels, and ``levels``: see
        :func:`mmfeatjnd.apis.metric.metric_rows`.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ConfigError: There is no such split, or one has no task metric.

    Example:
        >>> rows = guide_to_splits(cfg, checkpoint, ['backbone.layer2'], 4)
        Loads checkpoint ...
        >>> rows[0]['split'], rows[0]['levels'][0]['channels']
        ('backbone.layer2', 16)
    """
    test = OperationTest(cfg, checkpoint, (), splits[0])
    # a name that is wrong must not end the work of the others
    necks = [neck_at(test.model, split) for split in splits]
    rows = []
    for split, neck in zip(splits, necks):
        print(f'\n{split}:')
        loader = split_dataloader(
            test.runner, 'train', sample=images, seed=seed)
        data = neck.host.data_preprocessor(next(iter(loader)), False)
        tell_determined(neck, data['inputs'], data.get('data_samples'))
        metric = metric_of(neck, loader, draws, seed=seed)
        before, after = count_macs(neck, loader)
        levels = metric_rows(metric)
        rows.append(
            dict(
                split=split,
                macs_before=before,
                macs_after=after,
                elements_per_pixel=sum(
                    r['elements_per_pixel'] for r in levels),
                levels=levels))
    return rows


def guide_table(rows: Sequence[dict]) -> str:
    """The rows of :func:`guide_to_splits` as Markdown.

    Args:
        rows (Sequence[dict]): The rows.

    Returns:
        str: One line a level.

    Example:
        >>> rows = guide_to_splits(cfg, checkpoint, ['backbone.layer2'], 4)
        Loads checkpoint ...
        >>> print(guide_table(rows))
        | split | MMACs before | ...
    """
    lines = []
    for row in rows:
        before, after = row['macs_before'], row['macs_after']
        share = before / max(before + after, 1)
        first = [f"`{row['split']}`", f'{before / 1e6:.1f} ({share:.0%})',
                 f'{after / 1e6:.1f}', f"{row['elements_per_pixel']:.3f}"]
        for level in row['levels']:
            ranks = [f"{level['visible'][t]} / {level['channels']}"
                     for t in TOLERANCES]
            lines.append([*first, str(level['level']), *ranks,
                          f"{level['null_share'][TOLERANCES[0]]:.1%}",
                          f"{level['pooled']:.1%}",
                          f"{level['elements_per_pixel']:.3f}"])
            first = [''] * len(first)
    seen = [f'visible at {t:.0e}' for t in TOLERANCES]
    return markdown_table([
        'split', 'MMACs before', 'MMACs after', 'elements/pixel', 'level',
        *seen, f'null space at {TOLERANCES[0]:.0e}', 'mean only',
        'elements/pixel of it'
    ], lines)
