"""One operation on the features of one batch of images."""
from collections import defaultdict
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from mmfeatjnd.functional import (
    cast_to,
    check_layout,
    from_channels_first,
    image_keys,
    to_channels_first,
    view_keys,
)
from mmfeatjnd.utils import ConfigError
from .canvas import filled

# Streams of a level that is reached several times for one image, as by a
# sliding window: above all streams of a single call.
_CALL = 1 << 24


def image_ids(images: Optional[Sequence], batch_size: int) -> list:
    """Identities of the images of a batch, whatever the host calls them.

    The noise of an image depends on its identity, so it is the same in any
    batch and on any number of processes.

    Args:
        images (Sequence, optional): The host's data samples, or the
            identities themselves, integers or strings. None, or a sample
            that knows none of ``img_id``, ``sample_idx`` and ``img_path``:
            the position in the batch.
        batch_size (int): Number of images.

    Returns:
        list: One identity an image.
    """
    ids = []
    for i in range(batch_size):
        value = images[i] if images else i
        if not isinstance(value, (int, str)):
            value = _id_of(value, i)
        ids.append(value)
    return ids


def _id_of(sample: Any, position: int) -> Any:
    for name in ('img_id', 'sample_idx', 'img_path'):
        value = sample.get(name, None)
        if value is not None:
            break
    else:
        return position
    # where the data set lies must not matter
    return '/'.join(Path(value).parts[-2:]) if name == 'img_path' else value


class Visit:
    """One call of an operation: a level of some images, all of one size.

    Attributes:
        neck (FeatJNDNeck): It holds the estimators.
        images (Tensor): (R,), int64: the image in the batch that each row of
            the feature belongs to. One row an image, unless the split sees
            several views of it, such as windows or regions.
        keys (Tensor): (R,), int64: keys of the noise.
        stream (int): Stream of the noise.
        sensitivity (Tensor, optional): Diagonal of the task's Fisher
            information, the shape of the feature.
        detected (Tensor, optional): (R, 1, H, W), bool: tokens inside the
            host's own detections.
        uncertainty (Tensor, optional): (R,), how little sure the host is of
            these images, see :func:`mmfeatjnd.functional.uncertainty`.
    """

    def __init__(self,
                 run: 'Run',
                 images: Tensor,
                 keys: Tensor,
                 stream: int,
                 sensitivity: Optional[Tensor] = None,
                 detected: Optional[Tensor] = None) -> None:
        self.run = run
        self.neck = run.neck
        self.images = images
        self.keys = keys
        self.stream = stream
        self.sensitivity = sensitivity
        self.detected = detected

    @property
    def uncertainty(self) -> Optional[Tensor]:
        found = self.run.uncertainty
        return None if found is None else found[self.images]

    def measure(self, **values: Tensor) -> None:
        """Add what was measured, (R,) each, by name; see
        :attr:`Run.measured`."""
        self.run.add(self.images, **values)


#: Changes one level: (feature, level, visit) -> feature. Features come with
#: their channels in the second axis and without padding.
Operation = Callable[[Tensor, int, Visit], Tensor]


class Run:
    """An operation on one batch, and what it measured; see
    :meth:`FeatJNDNeck.run`.

    Attributes:
        visited (set[int]): Levels that the host has asked for so far.
        kept (list): What the operation keeps for its ``finish``.
        looked (list): What it keeps of a look at all levels, until it changes
            the first.
    """

    def __init__(self,
                 operation: Operation,
                 neck,
                 images: Optional[Sequence] = None,
                 seed: Optional[int] = None,
                 content: Optional[Sequence[tuple]] = None,
                 sensitivity: Optional[Dict[int, List[Tensor]]] = None,
                 detections: Optional[List[Tensor]] = None,
                 uncertainty: Optional[Tensor] = None,
                 canvas: Optional[Dict[int, Tensor]] = None):
        if getattr(operation, 'needs_sensitivity', False) and (
                sensitivity is None):
            raise ValueError(
                f"{operation.name} needs the task's gradient at the split: "
                'pass it as `sensitivity` (see mmfeatjnd.models.'
                'task_sensitivity), or name the operation where the batch is '
                'prepared.')
        self.operation = operation
        self.neck = neck
        self.images = images
        self.seed = getattr(operation, 'seed', 0) if seed is None else seed
        self.content = content
        self.sensitivity = sensitivity
        self.detections = detections
        self.uncertainty = uncertainty
        self.canvas = canvas
        self.visited = set()
        self.kept: List[Any] = []
        self.looked: List[Any] = []
        self._keys: Optional[Tensor] = None
        self._calls: Dict[int, int] = defaultdict(int)
        self._sums: Dict[str, Tensor] = {}
        self._counts: Dict[str, Tensor] = {}
        self._faults: Optional[Tensor] = None

    @property
    def batch_size(self) -> int:
        """int: Number of images, known once the split was reached."""
        return 0 if self._keys is None else len(self._keys)

    def size_of(self, image: int) -> Tuple[int, int]:
        """Height and width of an image of the batch, pixels: as it was read,
        or else as the host takes it; (1, 1) where nothing says so."""
        sample = self.images[image] if self.images else None
        if hasattr(sample, 'ori_shape'):
            return tuple(sample.ori_shape[:2])
        if self.content is not None:
            return tuple(self.content[image][:2])
        return (1, 1)

    # ------------------------------------------------------------- measuring
    def add(self, images: Tensor, **values: Tensor) -> None:
        """Add values, (R,) each, to those of their images, (R,)."""
        for name, value in values.items():
            if name not in self._sums:
                self._sums[name], self._counts[name] = (
                    torch.zeros(
                        self.batch_size,
                        dtype=torch.float64,
                        device=value.device) for _ in range(2))
            self._sums[name].index_add_(0, images, value.detach().double())
            self._counts[name].index_add_(
                0, images, torch.ones_like(value, dtype=torch.float64))

    @property
    def measured(self) -> Dict[str, Tensor]:
        """dict[str, Tensor]: By name what was measured of each image, (B,),
        float64: the sum over levels, views and calls of what the operation
        lists as ``totals``, and the mean of the rest. NaN for the mean of an
        image without any view."""
        totals = getattr(self.operation, 'totals', ())
        return {
            name: value if name in totals else value / self._counts[name]
            for name, value in self._sums.items()
        }

    @property
    def faults(self) -> Optional[Tensor]:
        """Tensor, optional: (2, B), int64, for each image 1 + the last level
        at which the host's feature (row 0) or the operation's result (row 1)
        was not finite, 0 for none. Reading it does not wait for the device,
        see :func:`check_faults`."""
        return self._faults

    def _note_faults(self, feature: Tensor, value: Tensor, images: Tensor,
                     level: int) -> None:
        sound, result = (
            x.isfinite().flatten(1).all(1) for x in (feature, value))
        broken = torch.stack([~sound, sound & ~result]).long() * (level + 1)
        index = images.expand_as(broken)
        self._faults.scatter_reduce_(1, index, broken, 'amax')

    # --------------------------------------------------------------- running
    def __call__(self, feature: Tensor, level: int) -> Tensor:
        """See :meth:`apply`."""
        return self.apply(feature, level)

    def apply(self, feature: Tensor, level: int) -> Tensor:
        """Run the operation on one level.

        Args:
            feature (Tensor): What the split emits: (R, C, H, W), (R, H, W,
                C), (R, N, C) or (R, C), R rows of B images.
            level (int): Its index among what the split emits.

        Returns:
            Tensor: The same shape and dtype.
        """
        neck = self.neck
        if not neck.works_on(level):
            return feature
        check_layout(feature, f"level {level} of split '{neck.split}'")
        self.visited.add(level)
        layout = neck.layout_of(feature, level)
        x = to_channels_first(feature, layout)
        self._prepare(x)
        begin = getattr(self.operation, 'begin', None)
        if begin is not None:
            begin([x if rows is None else _cut(x, rows, size)
                   for rows, size in self._parts(x)], level, neck)
        if not len(x):  # no regions at all
            self._calls[level] += 1
            return feature
        value = None
        for part, visit, rows, size in self._visits(feature, level):
            changed = self._visit(part, level, visit)
            if rows is None:
                value = changed
                break
            if value is None:
                left_out = getattr(self.operation, 'leaves_out_padding', False)
                value = filled(self.canvas, level, x) if left_out else \
                    x.clone()
            value[rows, :, :size[0], :size[1]] = changed
        self._calls[level] += 1
        value = from_channels_first(value, layout)
        # a host may view it as tokens
        return value.contiguous() if feature.is_contiguous() else value

    def look(self, features: Sequence[Tuple[int, Tensor]]) -> None:
        """Let the operation see all levels that arrive together, before it
        changes the first.

        Args:
            features (Sequence[tuple]): Their indices, and what the split
                emits.
        """
        look = getattr(self.operation, 'look', None)
        if look is None:
            return
        self.looked = []
        for level, feature in features:
            if self.neck.works_on(level) and len(feature):
                for part, visit, _, _ in self._visits(feature, level):
                    look(part, level, visit)

    def _prepare(self, x: Tensor) -> None:
        if self._keys is None:
            rows = x.size(0)
            batch = rows if self.images is None else len(self.images)
            self._keys = image_keys(
                image_ids(self.images, batch), self.seed, x.device)
            self._faults = self._keys.new_zeros(2, batch)

    def _visits(self, feature: Tensor, level: int) -> Iterator[tuple]:
        """The parts of a level, each with its visit, its rows and its size;
        see :meth:`_parts`."""
        layout = self.neck.layout_of(feature, level)
        x = to_channels_first(feature, layout)
        self._prepare(x)
        images, keys = self._rows(x)
        call = self._calls[level]
        sensitivity = detected = None
        if self.sensitivity is not None:
            sensitivity = to_channels_first(
                self._sensitivity_of(feature, level, call), layout)
        if self.detections is not None and x.dim() == 4:
            detected = inside_boxes(self.detections, x.shape[2:])[images]
        visit = Visit(self, images, keys, level + call * _CALL, sensitivity,
                      detected)
        for rows, size in self._parts(x):
            if rows is None:
                yield x, visit, None, ()
            else:
                yield _cut(x, rows, size), Visit(
                    self, images[rows], keys[rows], visit.stream,
                    *(None if y is None else _cut(y, rows, size)
                      for y in (sensitivity, detected))), rows, size

    def _sensitivity_of(self, feature: Tensor, level: int,
                        call: int) -> Tensor:
        calls = self.sensitivity.get(level, ())
        if call < len(calls) and calls[call].shape == feature.shape:
            return calls[call]
        there = [tuple(x.shape) for x in calls]
        raise RuntimeError(
            f"FeatJNDNeck: level {level} of split='{self.neck.split}' has the "
            f'shape {tuple(feature.shape)} where the host predicts (time '
            f'{call + 1}), but in its loss, whose gradient is needed, {there}:'
            ' it looks at other regions or queries there. Use another split, '
            'or nothing that needs the gradient.')

    def _visit(self, x: Tensor, level: int, visit: Visit) -> Tensor:
        value = self.operation(x, level, visit)
        with torch.no_grad():
            self._note_faults(x, value, visit.images, level)
        # a distortion may leave the range of half precision
        return value if value.dtype == x.dtype else cast_to(value, x.dtype)

    def _rows(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Image and key of every row."""
        rows, batch = x.size(0), len(self._keys)
        images = self.neck.row_images
        # some of the regions, as a mask head sees them, are nobody's
        alike = images is None or batch == 1
        if images is not None and len(images) == rows:
            # regions, each of which knows its image; in the order of images
            first = torch.searchsorted(images, images)
            views = torch.arange(rows, device=x.device) - first
        elif alike and rows == batch:
            return torch.arange(batch, device=x.device), self._keys
        elif alike and rows % batch == 0:
            # windows lie image by image
            row = torch.arange(rows, device=x.device)
            images, views = row // (rows // batch), row % (rows // batch)
        else:
            raise RuntimeError(
                f"FeatJNDNeck: split='{self.neck.split}' sees {rows} rows for "
                f'{batch} images, and nothing says which row belongs to which '
                'image. Use a batch size of 1, or another split.')
        return images, view_keys(self._keys[images], views)

    def _parts(self,
               x: Tensor) -> Iterator[Tuple[Optional[Tensor], tuple]]:
        """Rows of images of one size without their padding, but with the
        operation's margin, and this size; or None where all fill the map."""
        if (self.content is None or x.dim() != 4
                or x.size(0) != self.batch_size
                or self.neck.row_images is not None):
            yield None, ()
            return
        height, width = x.shape[-2:]
        margin = getattr(self.operation, 'margin', 0)
        sizes: Dict[tuple, List[int]] = defaultdict(list)
        for i, (h, w, *of) in enumerate(self.content):
            own = of[2:] or (h, w)
            size = tuple(
                min(-(-n * length // whole) + margin, -(-m * length // whole))
                for n, m, length, whole in zip((h, w), own, (height, width),
                                               of))
            sizes[size].append(i)
        if list(sizes) == [(height, width)]:
            yield None, ()
            return
        for size, rows in sizes.items():
            yield torch.tensor(rows).to(x.device, non_blocking=True), size

    def check_visited(self) -> None:
        """Raise unless the host has asked for every level."""
        neck = self.neck
        if neck.by_region:  # a picture without detections has no regions
            return
        missing = sorted(set(neck.active_levels) - self.visited)
        if missing:
            raise ConfigError(
                f"FeatJNDNeck: split='{neck.split}' was not reached for "
                f'level(s) {missing} of in_channels='
                f'{list(neck.in_channels)}. Choose another `split` of '
                'FeatJNDNeck, or set `in_channels` and `levels` to what it '
                'emits.')
        if not self.visited:
            raise ConfigError(
                f"FeatJNDNeck: split='{neck.split}' was not reached, or "
                'emits no float tensor. Choose another split.')

    def finish(self) -> None:
        """Let the operation end what it has begun."""
        self.check_visited()
        finish = getattr(self.operation, 'finish', None)
        if finish is not None:
            finish(self)


def _cut(x: Tensor, rows: Tensor, size: Tuple[int, int]) -> Tensor:
    return x[rows, :, :size[0], :size[1]]


def inside_boxes(boxes: Sequence[Tensor], size: Tuple[int, int]) -> Tensor:
    """The tokens of a map whose centres lie in a box.

    Args:
        boxes (Sequence[Tensor]): (N, 4) of each image: left, top, right and
            bottom, as shares of the input.
        size (tuple[int, int]): Height and width of the map.

    Returns:
        Tensor: (B, 1, H, W), bool.
    """
    padded = nn.utils.rnn.pad_sequence(list(boxes), batch_first=True)
    y, x = (
        (torch.arange(n, device=padded.device) + 0.5) / n for n in size)
    left, top, right, bottom = padded[..., None].unbind(2)  # (B, N, 1)
    inside = ((top <= y) & (y < bottom)).float().transpose(1, 2) @ (
        (left <= x) & (x < right)).float()
    return (inside > 0)[:, None]


def image_rows(
        batches: Sequence[Tuple[int, Dict[str, Tensor]]]) -> List[dict]:
    """What was measured, image by image.

    Args:
        batches (Sequence[tuple]): Number of images of every batch, and
            :attr:`Run.measured`.

    Returns:
        list[dict[str, float]]: One for each image; empty for those of a batch
        without any region at the split.
    """
    rows: List[dict] = []
    for size, measured in batches:
        values = {k: v.tolist() for k, v in measured.items()}
        rows += [{k: v[i] for k, v in values.items()} for i in range(size)]
    return rows


def columns_of(rows: Sequence[dict],
               totals: Sequence[str] = ()) -> Dict[str, Tensor]:
    """What was measured of a data set.

    Args:
        rows (Sequence[dict]): Rows of :func:`image_rows`. An empty one counts
            as 0 of what is summed and as NaN of the rest, as an image without
            any region does beside others.
        totals (Sequence[str]): What is summed. Defaults to ().

    Returns:
        dict[str, Tensor]: By name (N,), float64; nothing if all are empty.
    """
    names = next((list(row) for row in rows if row), [])
    nothing = {n: 0.0 if n in totals else float('nan') for n in names}
    return {
        n: torch.tensor([row.get(n, nothing[n]) for row in rows],
                        dtype=torch.float64)
        for n in names
    }


def check_faults(runs: Sequence[Run]) -> None:
    """Raise if a feature or a result was not finite. Waits for the device
    once.

    Args:
        runs (Sequence[Run]): The runs since the last check.

    Raises:
        ValueError: A host's feature or an operation's result is NaN or
            infinite; the level and the image are named.
    """
    runs = [r for r in runs if r.faults is not None]
    if not runs:
        return
    worst = torch.cat([r.faults for r in runs], 1).cpu()
    if not worst.any():
        return
    ids = [i for r in runs for i in image_ids(r.images, r.faults.size(1))]
    row = 0 if worst[0].any() else 1
    which = int(worst[row].nonzero()[0])
    level, split = int(worst[row, which]) - 1, runs[0].neck.split
    name = f"level {level} at split='{split}' (image {ids[which]})"
    if row == 0:
        raise ValueError(
            f'NaN or infinite values in {name}: the host is broken before any '
            'operation. Check its checkpoint and its input.')
    raise ValueError(
        f'NaN or infinite values in what the operation made of {name}: the '
        'estimator has diverged, or the numbers leave the range of float32. '
        'Use another checkpoint of the estimator.')


class _Checked(NamedTuple):
    """What :func:`check_faults` asks of a run, without its features."""
    faults: Optional[Tensor]
    images: Optional[Sequence]
    neck: Any


class Measurements:
    """What the runs over a data set measured, image by image.

    Faults are looked for in the first batch and every 50 runs, since a look
    waits for the device.
    """

    _CHECK_EVERY = 50

    def __init__(self) -> None:
        self._batches: List[Tuple[int, Dict[str, Tensor]]] = []
        self._unchecked: List[_Checked] = []

    def add(self, runs: Sequence[Run]) -> None:
        """Keep what was measured of a batch.

        Args:
            runs (Sequence[Run]): Over the same images: several with
                test-time augmentation, which sees each image several times.

        Raises:
            ValueError: See :func:`check_faults`.
        """
        views = [run.measured for run in runs if run.measured]
        self._batches.append((len(runs[0].images), {
            name: torch.stack([v[name] for v in views]).nanmean(0)
            for name in (views[0] if views else ())
        }))
        self._unchecked += [
            _Checked(r.faults, r.images, r.neck) for r in runs
        ]
        if len(self._batches) == 1 or \
                len(self._unchecked) >= self._CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Look for faults since the last look; see :func:`check_faults`."""
        check_faults(self._unchecked)
        self._unchecked = []

    def rows(self) -> List[dict]:
        """See :func:`image_rows`; after a look for faults."""
        self.check()
        return image_rows(self._batches)
