"""Measure the JND of a host: how much noise it takes until it notices.

What a subjective test is for eyes, this is for machines: noise is put on one
token, on a group of channels or on all of an image, and its strength is
bisected until the answer is a given number of nats from the clean one. What
closed forms and estimators predict is compared with that.
"""
import copy
import json
import math
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
)

import torch
from mmengine.config import Config
from torch import Tensor

from mmfeatjnd.functional import (
    Level,
    bisect_scale,
    image_keys,
    over_channels,
    to_tokens,
)
from mmfeatjnd.functional import nats as divergence
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models import (
    CheckpointError,
    PrefixReplay,
    TokenMap,
    Visit,
    build_distortion,
    find_read_levels,
    host_hash,
    image_ids,
    task_sensitivity,
)
from mmfeatjnd.models.operations.probe import Part, Probe
from mmfeatjnd.utils import ConfigError, atomic_path
from .curve import OperationTest, progress_bar
from .data import split_dataloader

#: Token maps whose predictions are compared with what is measured.
PREDICTORS = ('fisher', 'featjnd', 'static', 'other-image', 'level-gain',
              'permuted', 'feature-energy')
#: Between which strengths a threshold is looked for, log2 of the channels'
#: standard deviation, and how often the interval is halved. Noise on all of an
#: image costs a detector, which says many things, nats at very little.
_RANGE = (-12.0, 7.0)
_HALVINGS = 10
#: Strengths of noise on all of an image whose cost is measured, log2.
_STRENGTHS = tuple(x / 2 for x in range(-22, 5))


class Probed(NamedTuple):
    """What is measured, and what it is predicted to tolerate.

    Attributes:
        unit (str): 'token', 'channel-group' or 'image'.
        part (Part): Where the noise is.
        nats (float): The tolerance.
        log_w (dict[str, float]): By predictor the log sensitivity of the
            part, nats: noise of strength s costs w s^2 / 2.
    """
    unit: str
    part: Part
    nats: float
    log_w: Dict[str, float]

    @property
    def predicted(self) -> Dict[str, float]:
        """dict[str, float]: log2 of the strength that costs the tolerance."""
        return {
            name: 0.5 * (math.log(2 * self.nats) - log_w) / math.log(2)
            for name, log_w in self.log_w.items()
        }


class _Look:
    """Keeps what every level of one image is like; changes nothing."""

    def __init__(self, maps: Dict[str, TokenMap]) -> None:
        self.maps = maps
        self.levels: Dict[int, dict] = {}

    def __call__(self, feature: Tensor, level: int, visit: Visit) -> Tensor:
        if len(feature) != 1 or level in self.levels:
            raise ConfigError(
                f"split='{visit.neck.split}' sees an image in several parts, "
                'such as windows or regions. Measure at a split that sees it '
                'at once.')
        estimator = visit.neck.estimator_of(level)
        seen = Level(feature, visit.keys, visit.stream,
                     sensitivity=visit.sensitivity, estimator=estimator)
        log_w = {n: m.log_sensitivity(seen) for n, m in self.maps.items()}
        std = over_channels(estimator.channels.std, feature)
        self.levels[level] = dict(
            log_w={n: to_tokens(x).flatten() for n, x in log_w.items()},
            channels=to_tokens(
                std.square() * visit.sensitivity).sum((0, 1)))
        return feature


def _choose(levels: Dict[int, dict], tokens: int, groups: int,
            nats: Sequence[float], image_nats: Sequence[float],
            key: int) -> List[Probed]:
    """What is measured of an image."""
    generator = torch.Generator().manual_seed(key % (1 << 62))
    found: List[Probed] = []
    for nth, (level, seen) in enumerate(levels.items()):
        log_w = {n: x.cpu() for n, x in seen['log_w'].items()}
        count = len(next(iter(log_w.values())))
        # as equal shares of the levels as can be
        wanted = (nth + 1) * tokens // len(levels) - nth * tokens // len(
            levels)
        for token in torch.randperm(
                count, generator=generator)[:wanted].tolist():
            found += [
                Probed('token', Part(level, token), value,
                       {n: float(x[token]) for n, x in log_w.items()})
                for value in nats
            ]
        w = seen['channels'].cpu()
        ends = torch.linspace(0, len(w), min(groups, len(w)) + 1).round().int()
        for first, last in zip(ends.tolist(), ends[1:].tolist()):
            # what the mean over pictures says is left to the task metric
            known = w[first:last].sum().clamp_min(torch.finfo().tiny).log()
            found += [
                Probed('channel-group', Part(level, None, (first, last)),
                       value, dict(fisher=float(known))) for value in nats
            ]
    whole = _whole(levels)
    return found + [Probed('image', Part(), v, whole) for v in image_nats]


def _whole(levels: Dict[int, dict]) -> Dict[str, float]:
    """By predictor the log sensitivity of all tokens together, nats."""
    seen = [x['log_w'] for x in levels.values()]
    return {
        name: float(torch.cat([x[name] for x in seen]).double().logsumexp(0))
        for name in seen[0]
    }


class JNDMeter:
    """Measures the JND of a host, image by image.

    Args:
        cfg (Config): See :class:`mmfeatjnd.apis.OperationTest`.
        checkpoint (str): Host and estimator, or the host alone with
            ``estimator``.
        estimator (str, optional): An estimator file. Defaults to None: the
            checkpoint's.
        predictors (Sequence[str]): Token maps in ``DISTORTIONS``. Defaults to
            all that need no detections.
        draws (int): Draws of the noise, over which nats are averaged.
            Defaults to 6.
        fisher_draws (int): Gradients of the Fisher information of an image.
            Defaults to 32.
        rows (int): Copies of an image that run through the host at once.
            Defaults to 16.
        seed (int): Seed of tokens and noise. Defaults to 0.
        split (str, optional): See :class:`mmfeatjnd.apis.OperationTest`.
            Defaults to None.
        levels (Sequence[int], optional): See there. Defaults to None.

    Raises:
        CheckpointError: The estimator does not predict a sensitivity, or was
            never trained.

    Example:
        >>> from mmfeatjnd.apis import train_once
        >>> cfg.model.neck.estimator.mode = 'sensitivity'
        >>> meter = JNDMeter(cfg, train_once(cfg), draws=2)
        Loads checkpoint ...
        >>> batch = next(iter(meter.test.dataloader()))
        >>> found = meter.measure(batch, tokens=2, groups=1)
        >>> [row['unit'] for row in found['thresholds'][:3]]
        ['token', 'token', 'channel-group']
        >>> sorted(found['thresholds'][0]['predicted'])[:3]
        ['featjnd', 'feature-energy', 'fisher']
    """

    def __init__(self,
                 cfg: Config,
                 checkpoint: str,
                 estimator: Optional[str] = None,
                 predictors: Sequence[str] = PREDICTORS,
                 draws: int = 6,
                 fisher_draws: int = 32,
                 rows: int = 16,
                 seed: int = 0,
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None) -> None:
        cfg = copy.deepcopy(cfg)
        cfg.test_dataloader.batch_size = 1
        self.test = OperationTest(cfg, checkpoint,
                                  [estimator] if estimator else [], split,
                                  levels)
        self.test.use(0)
        self.maps = {name: build_distortion(name) for name in predictors}
        for name, found in self.maps.items():
            if not isinstance(found, TokenMap) or found.needs_detections:
                raise ValueError(f'{name!r} is no token map that says what a '
                                 'token tolerates')
        neck = self.test.neck
        if any(e.mode != 'sensitivity' for e in neck.estimators) or not any(
                e.trained for e in neck.estimators):
            raise CheckpointError(
                'measuring thresholds needs a trained estimator of mode '
                "'sensitivity', which knows the channels' deviations. Train "
                'one with a config of configs/featjnd.')
        self.draws = draws
        self.fisher_draws = fisher_draws
        self.rows = rows
        self.seed = seed

    def settings(self) -> dict:
        """What the thresholds depend on, beside the images."""
        neck = self.test.neck
        return dict(
            host_hash=host_hash(self.test.model),
            split=neck.split,
            estimators=[int(e.fingerprint()) for e in neck.estimators],
            predictors=list(self.maps),
            draws=self.draws,
            fisher_draws=self.fisher_draws,
            seed=self.seed)

    @torch.no_grad()
    def measure(self,
                batch: dict,
                tokens: int = 16,
                groups: int = 4,
                nats: Sequence[float] = (0.01, ),
                image_nats: Sequence[float] = (0.005, 0.01, 0.02, 0.05)
                ) -> dict:
        """The thresholds of one image.

        Args:
            batch (dict): A batch of one image, of a data loader.
            tokens (int): Number of tokens, drawn at random, of all levels
                together. Defaults to 16.
            groups (int): Groups of neighbouring channels of each level.
                Defaults to 4.
            nats (Sequence[float]): Tolerances of tokens and groups. Defaults
                to (0.01,).
            image_nats (Sequence[float]): Those of the whole image. Defaults
                to (0.005, 0.01, 0.02, 0.05).

        Returns:
            dict: ``thresholds``: of each ``unit``, ``level``, ``index`` (of
            the token, or the first channel), ``nats``, ``log2``: log2 of the
            strength in units of the channels' standard deviation,
            ``relation``: '' or '<' or '>' where it is beyond what was
            searched, ``predicted``: by predictor the log2 of it.
            ``response``: for some strengths of noise on the whole image
            ``log2``, ``measured`` nats, and ``predicted`` nats by predictor.
        """
        model, neck = self.test.model, self.test.neck
        adapter = adapter_of(model)
        data = model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data.get('data_samples')
        find_read_levels(neck, inputs, samples)
        image, = image_ids(samples, 1)
        look = _Look(self.maps)
        sensitivity = task_sensitivity(neck, inputs, samples,
                                       self.fisher_draws)
        with neck.run(
                look,
                images=[image],
                content=adapter.content(model, inputs, samples, False),
                sensitivity=sensitivity):
            adapter.likelihood(model, inputs, samples)
        chosen = _choose(look.levels, tokens, groups, nats, image_nats,
                         int(image_keys([image], self.seed)))
        cost = self._cost(inputs, samples, image)
        parts = [p.part for p in chosen]
        target = torch.tensor([p.nats for p in chosen], device=inputs.device)
        low, high = _RANGE
        found = bisect_scale(
            lambda scale: cost(parts, scale),
            target,
            finest=2.0**low,
            coarsest=2.0**high,
            iterations=_HALVINGS).log2().tolist()
        # an end to which the search went without ever turning round
        end = 1.5 * (high - low) / 2**_HALVINGS
        rows = [
            dict(
                unit=p.unit,
                level=p.part.level,
                index=p.part.token if p.part.channels is None else
                p.part.channels[0],
                nats=p.nats,
                log2=value,
                relation='<' if value < low + end else
                '>' if value > high - end else '',
                predicted=p.predicted) for p, value in zip(chosen, found)
        ]
        return dict(
            thresholds=rows, response=self._response(look.levels, cost))

    def _response(self, levels: Dict[int, dict], cost: Callable) -> List[dict]:
        device = next(self.test.model.parameters()).device
        scale = torch.tensor(_STRENGTHS, device=device).exp2()
        measured = cost([Part()] * len(scale), scale).tolist()
        known = _whole(levels)
        return [
            dict(
                log2=log2,
                measured=value,
                predicted={
                    n: 0.5 * math.exp(log_w) * 4.0**log2
                    for n, log_w in known.items()
                }) for log2, value in zip(_STRENGTHS, measured)
        ]

    def _cost(self, inputs: Tensor, samples: Optional[list],
              image) -> Callable:
        """A function from parts and (P,) scales to the nats that noise there
        costs, (P,), the mean over the draws."""
        model, neck = self.test.model, self.test.neck
        adapter, size = adapter_of(model), self.rows
        copies = inputs.expand(size, *inputs.shape[1:]).contiguous()
        many = samples and [samples[0].clone() for _ in range(size)]
        content = adapter.content(model, copies, many, False)
        prefix = PrefixReplay(neck)
        with prefix.record():
            clean = adapter.likelihood(model, copies, many)

        def cost(parts: Sequence[Part], scale: Tensor) -> Tensor:
            rows = [(p, d) for p in range(len(parts))
                    for d in range(self.draws)]
            found = []
            for start in range(0, len(rows), size):
                own = rows[start:start + size]
                # the recorded part is of so many copies
                full = own + own[-1:] * (size - len(own))
                index = torch.tensor([p for p, _ in full],
                                     device=scale.device)
                probe = Probe([parts[p] for p, _ in full], scale[index])
                with neck.run(probe, images=[f'{image}/{d}' for _, d in full],
                              content=content, seed=self.seed):
                    with prefix.replay():
                        changed = adapter.likelihood(model, copies, many,
                                                     clean.proposals)
                found.append(divergence(clean.terms, changed.terms,
                                        size)[:len(own)])
            return torch.cat(found).view(len(parts), self.draws).mean(1)

        return cost


def measure_jnd(meter: JNDMeter,
                file: Path,
                images: int = 24,
                **kwargs) -> List[dict]:
    """Measure thresholds on test images, and keep them as they come.

    A file that is there already goes on: images in it are not measured again.

    Args:
        meter (JNDMeter): What measures.
        file (Path): A file with a line of JSON for each image, after one with
            the settings.
        images (int): Number of test images, drawn at random; all of a smaller
            set. Defaults to 24.
        **kwargs: See :meth:`JNDMeter.measure`.

    Returns:
        list[dict]: ``image``, ``thresholds`` and ``response`` of each.

    Raises:
        ConfigError: The file was made with other settings.

    Example:
        >>> from pathlib import Path
        >>> from mmfeatjnd.apis import train_once
        >>> cfg.model.neck.estimator.mode = 'sensitivity'
        >>> meter = JNDMeter(cfg, train_once(cfg), draws=2)
        Loads checkpoint ...
        >>> found = measure_jnd(meter, Path('thresholds.jsonl'), images=1,
        ...                     tokens=2, groups=1, image_nats=[0.01])
        >>> len(found), len(found[0]['thresholds'])
        (1, 4)
    """
    settings = dict(meter.settings(), images=images, **{
        k: list(v) if isinstance(v, (list, tuple)) else v
        for k, v in kwargs.items()
    })
    known = _kept(file, settings)
    loader = split_dataloader(meter.test.runner, 'test', sample=images,
                              seed=meter.seed)
    done = {row['image'] for row in known}
    with progress_bar(len(loader)) as step, open(file, 'a') as out:
        for batch in loader:
            image, = image_ids(batch.get('data_samples'), 1)
            if str(image) not in done:
                row = dict(
                    image=str(image), **meter.measure(batch, **kwargs))
                known.append(row)
                out.write(json.dumps(row) + '\n')
                out.flush()
            step()
    return known


def _kept(file: Path, settings: dict) -> List[dict]:
    """The rows of a file; makes one with the settings where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = list(_whole_lines(file)) if file.is_file() else []
    if lines and lines[0] != settings:
        changed = [k for k in settings if lines[0].get(k) != settings[k]]
        raise ConfigError(
            f'{file} was made with other settings ({", ".join(changed)}). '
            'Remove it, or write to another folder.')
    with atomic_path(file) as path:  # without half a line
        Path(path).write_text(''.join(
            json.dumps(line) + '\n' for line in lines or [settings]))
    return lines[1:]


def _whole_lines(file: Path) -> Iterator[dict]:
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # cut in the middle of it
            return
