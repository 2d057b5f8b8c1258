"""Make the plan of a codec: components, scales and steps, of training
pictures."""
import logging
import math
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader

from mmfeatjnd.functional import (
    QuantizedLevel,
    Steps,
    Transform,
    component_gains,
    expected_error,
    fit_entropy_model,
    frequency_groups,
    group_means,
    identity_transform,
    make_transform,
    metric_basis,
    shrunk,
    uncertainty,
)
from mmfeatjnd.functional.entropy import scale_class
from mmfeatjnd.functional.transform import GROUPINGS
from mmfeatjnd.hosts import NoLikelihood, adapter_of
from mmfeatjnd.models import Quantization, find_read_levels
from mmfeatjnd.models.codec_plan import (
    CodecPlan,
    LevelCode,
    PartPlan,
    rounded_part,
    step_for,
)
from mmfeatjnd.models.determined import tell_determined
from mmfeatjnd.models.metric_file import (
    FrequencyMetric,
    LevelMetric,
    TaskMetric,
)
from mmfeatjnd.models.readers import reader_metrics
from mmfeatjnd.utils import ConfigError, log
from .curve import OperationTest, progress_bar
from .data import split_dataloader
from .metric import Block, metric_of

#: Codes by what their basis is of. 'uniform' quantizes the feature itself.
CODES = ('task', 'lateral', 'pca-dct', 'dct', 'pca', 'uniform')
#: Samples of a covariance for each channel: of a frequency's own basis, and
#: of one for all frequencies of a radius.
ENOUGH = dict(frequency=20, radius=5)
#: Bytes of a file.
MAX_BYTES = 290_000
#: Expected nats of an image at the steps that are measured.
NATS = tuple(0.0025 * 4**k for k in range(7))


# -------------------------------------------------------------- the transforms
class _Grouped(NamedTuple):
    """What :func:`mmfeatjnd.models.codec_plan.rounded_part` makes a part
    of."""
    transform: Transform
    grouping: str
    bits: int = 8


def _grouping(frequencies: FrequencyMetric, images: int) -> str:
    """The finest grouping that the samples suffice for."""
    number, channels = frequencies.mean.shape
    samples = images * frequencies.blocks
    for name in GROUPINGS[:2]:
        groups = int(frequency_groups(frequencies.block, name).max()) + 1
        if samples * number / groups >= ENOUGH[name] * channels:
            return name
    return 'shared'


def _coarser(grouping: str) -> Optional[str]:
    place = GROUPINGS.index(grouping) + 1
    return GROUPINGS[place] if place < len(GROUPINGS) else None


def _basis_bytes(frequencies: FrequencyMetric, grouping: str) -> int:
    """Of its bases, in 8 bits."""
    groups = int(frequency_groups(frequencies.block, grouping).max()) + 1
    return groups * frequencies.mean.size(1)**2


def _transform(frequencies: FrequencyMetric, grouping: str, images: int,
               metric: Tensor, plain: bool) -> Transform:
    """That of a metric, (F, C, C).

    Args:
        frequencies (FrequencyMetric): Moments of the features.
        grouping (str): Which frequencies share a basis.
        images (int): Number of pictures.
        metric (Tensor): M of each frequency.
        plain (bool): No basis, but the root of the metric.
    """
    group = frequency_groups(frequencies.block, grouping)
    samples = images * frequencies.blocks
    covariance = shrunk(frequencies.covariance.double(), samples)
    metric = metric.double()
    if plain:
        values = metric.diagonal(dim1=-2, dim2=-1).sqrt()
        basis = torch.diag_embed(group_means(values, group))
    else:
        basis = metric_basis(group_means(metric, group),
                             group_means(covariance, group))
    return make_transform(frequencies.block, frequencies.mean, basis, group,
                          component_gains(basis, group, metric))


def _metric_by_frequency(level: LevelMetric, frequencies: FrequencyMetric,
                         code: str, readers: Optional[Tensor],
                         images: int) -> Tensor:
    """M of each frequency, (F, C, C), of a code."""
    if code == 'task':
        return shrunk(frequencies.metric.double(),
                      images * frequencies.blocks)
    if readers is not None:
        return readers.double().expand_as(frequencies.metric)
    # of one gain for the level: what white noise costs there
    weight = level.metric.double().trace() / level.channels
    return weight * torch.eye(level.channels).expand_as(
        frequencies.metric).double()


def transforms_of(metric: TaskMetric,
                  code: str = 'task',
                  readers: Optional[Dict[int, Tensor]] = None,
                  max_bytes: int = MAX_BYTES
                  ) -> Dict[int, List[_Grouped]]:
    """The components of a code, of every level and part.

    Every code has a gain for each level, such that noise on any component
    costs the task alike as far as the code knows it: 'task' by frequency and
    channel, 'lateral' by the weights of the layers that read the level, and
    the others by the mean of the task metric over the channels.

    Args:
        metric (TaskMetric): With moments by frequency.
        code (str): One of :data:`CODES`. Defaults to 'task'.
        readers (dict[int, Tensor], optional): Of 'lateral' the metric of the
            readers, see
            :func:`mmfeatjnd.models.readers.reader_metrics`.
        max_bytes (int): Of the file; more frequencies share a basis until
            it is met. Where all share one and it is not, their elements have
            fewer bits than 8, at least 4. Defaults to 290,000.

    Returns:
        dict[int, list]: By level, of its map and of the tokens before it, the
        transform and its grouping.

    Raises:
        ConfigError: The metric has no moments by frequency.
    """
    if code not in CODES:
        raise ValueError(f'code must be one of {CODES}, but got {code!r}')
    maps = {}
    for index, level in metric.levels.items():
        if level.frequencies is None:
            raise ConfigError(
                'the metric has no moments by frequency: estimate it with '
                "block='auto'")
        maps[index] = [x for x in (level.frequencies, level.rest) if x]
        if code in ('pca', 'uniform'):  # without a DCT
            maps[index] = [_without_dct(level, x) for x in maps[index]]
    named = {(index, i): _grouping(x, metric.images)
             for index, found in maps.items() for i, x in enumerate(found)}

    def size(key: Tuple[int, int]) -> int:
        return _basis_bytes(maps[key[0]][key[1]], named[key])

    plain = code in ('dct', 'uniform')
    if plain:
        named = dict.fromkeys(named, 'shared')
    # gains and scales of the components, which deflate to half and less
    max_bytes -= sum(x.mean.numel() for found in maps.values() for x in found)
    while sum(map(size, named)) > max_bytes:
        finer = [key for key in named if _coarser(named[key])]
        if not finer:
            break
        key = max(finer, key=size)
        named[key] = _coarser(named[key])
    whole = 0 if plain else sum(map(size, named))
    bits = next((n for n in (8, 7, 6, 5) if whole * n <= 8 * max_bytes), 4)
    if code == 'lateral':
        readers = _in_nats(readers or {}, metric)
    result: Dict[int, List[_Grouped]] = {}
    for (index, i), grouping in named.items():
        level, frequencies = metric.levels[index], maps[index][i]
        own = None if code != 'lateral' else readers[index]
        weights = _metric_by_frequency(level, frequencies, code, own,
                                       metric.images)
        if code == 'uniform':
            gain = float(weights[0, 0, 0]) ** 0.5 or 1.0
            found = _Grouped(identity_transform(level.channels, gain),
                             grouping)
        else:
            found = _Grouped(
                _transform(frequencies, grouping, metric.images, weights,
                           plain), grouping, bits)
        result.setdefault(index, []).append(found)
    return result


def _in_nats(readers: Dict[int, Tensor],
             metric: TaskMetric) -> Dict[int, Tensor]:
    """Metrics of the readers, times one number: what white noise costs, over
    all levels, is what the task metric says."""
    whole, own = (
        sum(level.tokens * float(found[i].double().trace())
            for i, level in metric.levels.items())
        for found in ({i: x.metric for i, x in metric.levels.items()},
                      readers))
    return {i: x * (whole / own) for i, x in readers.items()}


def _without_dct(level: LevelMetric,
                 frequencies: FrequencyMetric) -> FrequencyMetric:
    """The moments of the tokens themselves."""
    if frequencies is level.rest:
        return frequencies
    return FrequencyMetric(1, level.tokens, level.mean[None],
                           level.covariance[None], level.metric[None])


# ------------------------------------------------------------------ the scales
class _Scales:
    """Counts the components of one part."""

    def __init__(self, code: str) -> None:
        self.fitted = code == 'uniform'
        self.total: Tensor = torch.zeros(())
        self.count = 0
        self.kept: List[Tensor] = []

    def add(self, z: Tensor) -> None:
        """Components, (B, K, h, w)."""
        tokens = z.flatten(2).transpose(1, 2).flatten(0, 1)
        self.total = self.total + tokens.abs().double().sum(0)
        self.count += len(tokens)
        if self.fitted:
            self.kept.append(tokens[::max(1, len(tokens) // 256)].cpu())

    def put_into(self, part: PartPlan) -> PartPlan:
        """The part with its scales."""
        shape = part.scale.shape
        if self.fitted:
            return _fitted(part, torch.cat(self.kept)[:, None].mT)
        mean = self.total / max(self.count, 1)
        scale = scale_class(mean / (2 * math.log(2))).view(shape)
        return part._replace(scale=_int8(scale).cpu())


def _int8(classes: Tensor) -> Tensor:
    return classes.clamp(-128, 127).to(torch.int8)


def _fitted(part: PartPlan, tokens: Tensor) -> PartPlan:
    """Scales and centres by the likelihood of fine symbols of (N, K, 1)."""
    tokens = tokens.permute(2, 0, 1)  # (1, N, K)
    spread = tokens.std((0, 1)).square().mean().sqrt().clamp_min(1e-12)
    step = float(spread) / 8
    symbols = (tokens / step).round()
    model = fit_entropy_model(
        QuantizedLevel(symbols, Steps(torch.tensor([step])))).model
    shape = part.scale.shape
    return part._replace(
        scale=_int8(model.scale.view(shape)),
        centre=_int8(model.centre.view(shape)),
        rectified=bool(model.rectified))


class _Look:
    """Counts components, and changes nothing."""
    name = 'the plan of a codec'
    margin = Quantization.margin

    def __init__(self, codes: Dict[int, LevelCode],
                 scales: Dict[int, List[_Scales]]) -> None:
        self.codes = codes
        self.scales = scales
        self.blocks = {i: [0] * len(x) for i, x in scales.items()}

    def __call__(self, feature: Tensor, level: int, visit) -> Tensor:
        found = self.codes[level].components(feature)
        for i, (counter, z) in enumerate(zip(self.scales[level], found)):
            counter.add(z)
            self.blocks[level][i] += len(z) * z[0, 0].numel()
        return feature


def _count(test: OperationTest, loader: DataLoader, codes, scales) -> _Look:
    look = _Look(codes, scales)
    model, neck = test.model, test.neck
    neck.forget()
    with progress_bar(len(loader)) as step:
        for batch in loader:
            data = model.data_preprocessor(batch, False)
            inputs, samples = data['inputs'], data.get('data_samples')
            find_read_levels(neck, inputs, samples)
            content = adapter_of(model).content(model, inputs, samples, False)
            with torch.no_grad(), neck.run(look, images=samples or range(
                    len(inputs)), content=content):
                model.predict(inputs, samples)
            step()
    return look


# ------------------------------------------------------------------- the steps
def expected_cost(parts: Dict[int, Tuple[PartPlan, ...]],
                  blocks: Dict[int, List[float]], step: float) -> float:
    r"""The closed form: nats of an image at a step.

    .. math:: \mathrm{E}[\mathrm{KL}] \approx
        \tfrac12 \sum_i N_i\, \mathrm{E}[e_i^2]

    over components i of N_i blocks, whose scales say what rounding errs. Right
    within 15 % up to 0.02 nats, and too low from there on.

    Args:
        parts (dict): Those of a plan.
        blocks (dict): Mean number of blocks of an image, by level and part.
        step (float): The step.

    Returns:
        float: Nats, for a code in units of the task metric.
    """
    total = 0.0
    for index, every in parts.items():
        for part, number in zip(every, blocks[index]):
            scale = (part.scale.float() / 4).exp2()
            error = expected_error(scale / step) * step**2
            total += 0.5 * number * float(error.double().sum())
    return total


def step_at(parts: Dict[int, Tuple[PartPlan, ...]],
            blocks: Dict[int, List[float]], nats: float) -> float:
    """The step at which :func:`expected_cost` is so many nats, or nearly all
    that there is."""
    whole = expected_cost(parts, blocks, 1e9)
    nats = min(nats, 0.9 * whole)
    low, high = 1e-9, 1e9
    for _ in range(60):
        middle = math.sqrt(low * high)
        if expected_cost(parts, blocks, middle) < nats:
            low = middle
        else:
            high = middle
    return high


class _Point(NamedTuple):
    """What a step comes to on some pictures."""
    step: float
    nats: float
    bits: float


def _measured(test: OperationTest, loader: DataLoader,
              asked: Sequence[Tuple[CodecPlan, float]]) -> List[_Point]:
    """Nats and bits of an image at the steps of plans, means over the
    pictures."""
    operations = [Quantization(dict(type='plan', plan=plan), scale=step)
                  for plan, step in asked]
    nats: List[List[Tensor]] = [[] for _ in asked]
    bits: List[List[Tensor]] = [[] for _ in asked]
    test.neck.forget()
    with progress_bar(len(loader)) as step:
        for batch in loader:
            with test.batch(batch, operations) as (_, predict):
                distance = predict.nats()
                for i, operation in enumerate(operations):
                    _, run = predict(operation)
                    bits[i].append(run.measured['bits'])
                    nats[i].append(distance(operation))
            step()
    return [
        _Point(step, *(float(torch.cat(v).double().mean()) for v in found))
        for (_, step), *found in zip(asked, nats, bits)
    ]


def _bits_at(points: Sequence[_Point], nats: float) -> float:
    """Bits of an image at a cost, by a line through the logarithms."""
    cost, bits = np.log([[p.nats for p in points], [p.bits for p in points]])
    slope, height = np.polyfit(cost, bits, 1)
    return float(np.exp(height + slope * math.log(nats)))


#: Powers that are tried, of blocks and of images.
BLOCK_POWERS = (0.0, 0.25, 0.5)
IMAGE_POWERS = (0.0, 0.125, 0.25)


def choose_powers(test: OperationTest, loader: DataLoader, plan: CodecPlan,
                  nats: float, tail: bool = True) -> CodecPlan:
    """The plan with the powers of adaptive steps that take the fewest bits at
    equal cost, 0 among them.

    Args:
        test (OperationTest): The host; with a trained estimator in
            sensitivity mode powers of blocks are tried.
        loader (DataLoader): Training pictures.
        plan (CodecPlan): A plan with a curve.
        nats (float): The cost, nats of an image.
        tail (bool): Whether powers of images are tried, for which the sender
            runs the whole host. Defaults to True.

    Returns:
        CodecPlan: The same with ``block_power``, ``image_power`` and
        ``image_level``.
    """
    steps = [step_for(plan, nats) * x for x in (0.75, 1.0, 1.35)]

    def best(field: str, powers: Sequence[float],
             plan: CodecPlan) -> CodecPlan:
        plans = [plan._replace(**{field: p}) for p in powers]
        points = _measured(test, loader,
                           [(p, s) for p in plans for s in steps])
        bits = [_bits_at(points[i:i + len(steps)], nats)
                for i in range(0, len(points), len(steps))]
        log(f'{field}: ' + ', '.join(
            f'{p:g}: {b:.0f} bits' for p, b in zip(powers, bits)) +
            f' an image at {nats:g} nats')
        return plans[int(np.argmin(bits))]

    estimators = test.neck.active_estimators()
    if estimators and all(e.mode == 'sensitivity' and e.trained
                          for e in estimators):
        plan = best('block_power', BLOCK_POWERS, plan)
    if tail:
        level = _uncertainty(test, loader)
        if level is not None:
            plan = best('image_power', IMAGE_POWERS,
                        plan._replace(image_level=level))
    return plan


def _uncertainty(test: OperationTest,
                 loader: DataLoader) -> Optional[float]:
    """Mean of log2 u over pictures; None where the host says nothing."""
    found = []
    for batch in loader:
        data = test.model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data.get('data_samples')
        try:
            with torch.no_grad():
                answer = adapter_of(test.model).likelihood(
                    test.model, inputs, samples)
        except NoLikelihood:
            return None
        found.append(uncertainty(answer.terms, len(inputs)))
    return float(torch.cat(found).clamp_min(1e-12).log2().mean())


def make_plan(cfg: Config,
              checkpoint: str,
              metric: Optional[TaskMetric] = None,
              code: str = 'task',
              images: int = 400,
              split: Optional[str] = None,
              levels: Optional[Sequence[int]] = None,
              block: Block = 'auto',
              draws: int = 3,
              nats: Sequence[float] = NATS,
              curve_images: int = 64,
              max_bytes: int = MAX_BYTES,
              adapt: Optional[float] = None,
              tail: bool = True,
              estimator: Optional[str] = None,
              seed: int = 0) -> CodecPlan:
    """The plan of a codec, of unlabelled training pictures.

    Nothing is trained: moments of features and of the task's gradients, then
    the scales of the components, then what some steps cost.

    Args:
        cfg (Config): A config of any host, with ``train_dataloader`` and
            ``test_dataloader``.
        checkpoint (str): The host's, with an estimator or without.
        metric (TaskMetric, optional): With moments by frequency. Defaults to
            None: it is estimated, see :func:`estimate_metric`.
        code (str): One of :data:`CODES`. Defaults to 'task'.
        images (int): Number of pictures. 200 are as good, 100 cost 3 to 8 %
            of the bits. Defaults to 400.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the config's; 'backbone' for a plain host.
        levels (Sequence[int], optional): See there. Defaults to None: all.
        block (int | str, optional): See :func:`estimate_metric`. Defaults to
            'auto'.
        draws (int): See there. Defaults to 3.
        nats (Sequence[float]): Expected nats of an image at the steps that
            are measured. Defaults to 0.0025 to 10, by factors of 4.
        curve_images (int): Pictures that these are measured on. Defaults to
            64.
        max_bytes (int): See :func:`transforms_of`. Defaults to 250,000.
        adapt (float, optional): Nats of an image at which the powers of
            adaptive steps are chosen, see :func:`choose_powers`. Defaults to
            None: steps do not vary.
        tail (bool): See there. Defaults to True.
        estimator (str, optional): An estimator file, for steps that vary over
            blocks. Defaults to None: that of the checkpoint, if there is one.
        seed (int): Seed of the choice of pictures, and of the draws. Defaults
            to 0.

    Returns:
        CodecPlan: For :func:`mmfeatjnd.models.codec_plan.save_plan`.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ConfigError: See :func:`estimate_metric` and :func:`transforms_of`.

    Example:
        >>> plan = make_plan(cfg, checkpoint, images=8, nats=[0.01])
        Loads checkpoint ...
        >>> plan.code, sorted(plan.parts)
        ('task', [0])
    """
    test = OperationTest(cfg, checkpoint, [estimator] if estimator else (),
                         split, levels)
    loader = split_dataloader(test.runner, 'train', sample=images, seed=seed)
    data = test.model.data_preprocessor(next(iter(loader)), False)
    first = data['inputs'], data.get('data_samples')
    tell_determined(test.neck, *first)
    if metric is None:
        metric = metric_of(test.neck, loader, draws, block, seed)
    readers = None
    if code == 'lateral':
        find_read_levels(test.neck, *first)
        readers = reader_metrics(test.neck, *first)
    found = transforms_of(metric, code, readers, max_bytes)
    parts = {
        index: tuple(rounded_part(*x) for x in every)
        for index, every in found.items()
    }
    device = next(test.model.parameters()).device
    codes = {i: LevelCode(p, device) for i, p in parts.items()}
    scales = {i: [_Scales(code) for _ in p] for i, p in parts.items()}
    look = _count(test, loader, codes, scales)
    parts = {
        index: tuple(s.put_into(p) for s, p in zip(scales[index], every))
        for index, every in parts.items()
    }
    number = len(loader.dataset)
    blocks = {i: [n / number for n in x] for i, x in look.blocks.items()}
    plan = CodecPlan(
        parts=parts,
        code=code,
        split=metric.split,
        configured=metric.configured,
        host_hash=metric.host_hash,
        images=number,
        seed=seed)
    if not nats:
        return plan
    steps = sorted({step_at(parts, blocks, x) for x in nats})
    loader = split_dataloader(test.runner, 'train', sample=curve_images,
                              seed=seed)
    plan = plan._replace(curve=_curve(test, loader, plan, steps))
    if not adapt:
        return plan
    known = [n for _, n in plan.curve]
    plan = choose_powers(test, loader, plan,
                         min(max(adapt, known[0]), known[-1]), tail)
    if plan.block_power or plan.image_power:
        plan = plan._replace(curve=_curve(test, loader, plan, steps))
    return plan


def _curve(test: OperationTest, loader: DataLoader, plan: CodecPlan,
           steps: Sequence[float]) -> Tuple[Tuple[float, float], ...]:
    """What steps cost, rising."""
    points = _measured(test, loader, [(plan, s) for s in steps])
    cost = np.maximum.accumulate([p.nats for p in points])
    if not np.isfinite(cost).all():
        log('a step costs more nats than can be counted: the curve of the '
            'plan ends below it', logging.WARNING)
    return tuple((s, float(c)) for s, c in zip(steps, cost)
                 if np.isfinite(c) and c > 0)
