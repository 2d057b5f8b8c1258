"""Run a host in two parts, with a file of features between them."""
import copy
import logging
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mmfeatjnd.coding import decode_image
from mmfeatjnd.coding.feature_file import FeatureFile, check_names, pack
from mmfeatjnd.compat import host_library, require
from mmfeatjnd.functional import (
    dequantize,
    from_channels_first,
    to_channels_first,
)
from mmfeatjnd.models import (
    Quantization,
    Run,
    attached,
    check_faults,
    check_host_weights,
    find_neck,
)
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.models.operations.quantization import streams
from mmfeatjnd.models.splits import Skeleton, from_blank, to_blank
from .checkpoints import ensure_checkpoint
from .console import UsageError, atomic_path, log
from .estimator_file import host_hash, load_estimator
from .launch import prepare_host
from .library import host_of, type_name
from .training import build_model

HASH_DIGITS = 16
_SAMPLES = dict(
    mmdet='DetDataSample', mmpretrain='DataSample', mmseg='SegDataSample')


class _SplitReached(Exception):
    """Ends a pass of the host where the features are known."""


class _Sender:
    """Quantizes, and stops the host at the last level."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.strides: Dict[int, tuple] = {}

    def __call__(self, feature: Tensor, level: int) -> Tensor:
        value = self.run.apply(feature, level)
        neck = self.run.neck
        if level in neck.active_levels:
            layout = neck.layout_of(feature, level)
            self.strides[level] = to_channels_first(value, layout).stride()
        if len(self.strides) == len(neck.active_levels):
            raise _SplitReached
        return value


class _Receiver:
    """Returns the decoded features."""

    def __init__(self, neck, features: Dict[int, Tensor],
                 strides: Dict[int, tuple]) -> None:
        self.neck = neck
        self.features = features
        self.strides = strides
        self.used = set()

    def __call__(self, feature: Tensor, level: int) -> Tensor:
        if level not in self.features:  # nothing reads it
            return feature
        value = self.features[level]
        if level in self.used:
            raise RuntimeError(f'level {level} is asked for twice')
        self.used.add(level)
        layout = self.neck.layout_of(feature, level)
        whole = _whole(value,
                       to_channels_first(feature, layout).shape,
                       self.strides[level], level)
        return from_channels_first(whole, layout).to(feature.device)


def _check_precision(host: torch.nn.Module, features: List[Tensor],
                     device: torch.device) -> None:
    """Raise if a host does not compute in the precision of the features.
    With autocast it takes all."""
    if torch.is_autocast_enabled(device.type):
        return
    # what runs before the split says nothing: it is replayed from the file
    own = {p.dtype for p in host.parameters()}
    for feature in features:
        if feature.dtype not in own:
            sent, expected = (
                str(x).removeprefix('torch.')
                for x in (feature.dtype, next(iter(own))))
            raise UsageError(
                f'the features were sent as {sent}, but here the host '
                f'computes in {expected}: run both sides in one precision')


def _whole(value: Tensor, shape: torch.Size, stride: tuple,
           level: int) -> Tensor:
    """Decoded features in the shape and layout of the host's: sums depend on
    the layout in the last bit. The padding of a map is not sent, and is 0."""
    fits = value.shape == shape or (
        value.dim() == len(shape) == 4 and value.shape[:2] == shape[:2]
        and all(n <= m for n, m in zip(value.shape, shape)))
    if not fits:
        raise UsageError(
            f'level {level} of the file has shape {tuple(value.shape)}, '
            f'but the host expects {tuple(shape)}: the file is corrupted')
    last = sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    # an element of its own for each, and no more
    if not all(s > 0 for s in stride) or last != shape.numel() - 1:
        raise UsageError(f'corrupted: strides {stride} for {tuple(shape)}')
    whole = torch.empty_strided(shape, stride, dtype=value.dtype).zero_()
    whole[tuple(slice(n) for n in value.shape)] = value
    return whole


@contextmanager
def _watching_nan(host: torch.nn.Module, skipped: set) -> Iterator[List[str]]:
    """The names of layers whose results hold a NaN, in their order.

    Where the part before the split did not run there is NaN, whatever the
    image; empty predictions would hide it.
    """
    found: List[str] = []

    def watch(name: str, module: torch.nn.Module):

        def look(module, args, output):
            if not found and any(
                    x.is_floating_point() and bool(x.isnan().any())
                    for x in tree_leaves(output) if isinstance(x, Tensor)):
                found.append(name)

        return module.register_forward_hook(look)

    inside = {id(m) for s in skipped for m in s.modules()}
    with ExitStack() as stack:
        for name, module in host.named_modules():
            if id(module) not in inside and not any(module.children()):
                stack.callback(watch(name, module).remove)
        yield found


class FeatureCodec:
    """The part of a host before the split, and the part after it.

    Args:
        cfg (Config): A config with a :class:`FeatJNDNeck`.
        checkpoint (str): Checkpoint of the host, with or without estimators.
        estimator (str, optional): A file of
            :func:`mmfeatjnd.apis.save_estimator`. Defaults to None: the
            checkpoint's, if a policy needs it.
        device (str, optional): Defaults to None: an accelerator if there is
            one.

    Raises:
        UsageError: The checkpoint or the estimator cannot be used.
    """

    def __init__(self,
                 cfg: Config,
                 checkpoint: str,
                 estimator: Optional[str] = None,
                 device: Optional[str] = None) -> None:
        self.cfg = copy.deepcopy(cfg)
        self.cfg.load_from = checkpoint
        prepare_host(self.cfg)
        ensure_checkpoint(self.cfg, 'tools/feature_codec.py ... CONFIG {}')
        self.device = torch.device(device or get_device())
        self.model = build_model(self.cfg).eval()
        try:
            self.neck = find_neck(self.model)
            _load(self.model, checkpoint)
            if estimator is not None:
                load_estimator(self.model, estimator)
            self.model.to(self.device)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise UsageError(str(error)) from error
        self.library = host_library(self.model)
        if self.library is None:
            raise UsageError(f'{type(self.model).__name__} belongs to none of '
                             f'{", ".join(_SAMPLES)}')
        self.host = host_hash(self.model)[:HASH_DIGITS]
        self._pipeline: Optional[Compose] = None
        self._checked = False

    # ---------------------------------------------------------------- encode
    def load(self, path: Union[str, Path]) -> Tuple[Tensor, list]:
        """Read an image as the host's test pipeline does.

        Args:
            path (str | Path): The image.

        Returns:
            tuple: Inputs (1, 3, H, W) and one data sample, without
            annotations.
        """
        if self._pipeline is None:
            self._pipeline = Compose(image_pipeline(self.cfg))
        try:
            data = self._pipeline(dict(img_path=str(path)))
        except Exception as error:  # whatever a transform may raise
            raise UsageError(f'{path}: the image cannot be read by the test '
                             f'pipeline ({_one_line(error)})') from error
        data = self.model.data_preprocessor(pseudo_collate([data]), False)
        return data['inputs'], data['data_samples']

    @torch.no_grad()
    def encode(self,
               path: Union[str, Path],
               quantization: Quantization,
               name: Optional[str] = None) -> bytes:
        """Run an image through the part before the split.

        The first image also runs through the whole host, to see that the
        part after the split needs no more than what is sent.

        Args:
            path (str | Path): The image.
            quantization (Quantization): How to quantize.
            name (str, optional): What ``img_path`` becomes in the file.
                Defaults to None: the image's name without folders.

        Returns:
            bytes: A file, see :mod:`mmfeatjnd.coding.feature_file`.

        Raises:
            UsageError: The image cannot be read, or the host cannot be split
                there.
        """
        try:
            quantization.check(self.neck)
        except RuntimeError as error:
            raise UsageError(str(error)) from error
        inputs, samples = self.load(path)
        metainfo = dict(copy.deepcopy(samples[0].metainfo))
        metainfo['img_path'] = name or Path(path).name
        given = copy.deepcopy(samples)
        skeleton = Skeleton(self.model, self.neck)
        try:
            known = prepare(self.model, self.neck, [quantization], inputs,
                            given)
            run = Run(quantization, self.neck, **known)
            sender = _Sender(run)
            with attached(self.model, self.neck), \
                    self.neck.changing(sender), skeleton.record(), \
                    suppress(_SplitReached):
                self.model.predict(inputs, samples)
            check_faults([run])
        except Exception as error:  # whatever a host makes of an image
            raise UsageError(f'{path}: the host fails on this image '
                             f'({_one_line(error)})') from error
        if any(len(images) != 1 for images, *_ in run.kept):
            raise UsageError(
                f"split='{self.neck.split}' sees several views of an image at "
                'once; a feature file holds one')
        content = FeatureFile(
            split=self.neck.split,
            levels=tuple(sender.strides),
            strides=tuple(sender.strides.values()),
            host=self.host,
            metainfo=metainfo,
            inputs=to_blank(inputs),
            outputs=skeleton.state_dict(),
            stream=streams(run.kept, 1)[0])
        try:
            data = pack(content)
        except (TypeError, ValueError) as error:
            raise UsageError(f'{path}: {error}') from error
        if not self._checked:
            with attached(self.model, self.neck), \
                    self.neck.run(quantization, **known) as run:
                expected, = self.model.predict(inputs, given)
            self._check(content, expected, len(run.kept))
            self._checked = True
        return data

    def _check(self, content: FeatureFile, expected: Any,
               visits: int) -> None:
        """Compare with the whole host under the same quantization."""
        split = f"split='{self.neck.split}'"
        if visits != len(content.levels):
            raise UsageError(
                f'the host runs {split} several times for one image, as a '
                'sliding window does; a feature file holds one pass. For '
                "MMSegmentation set model.test_cfg.mode='whole'")
        problem = 'its prediction changes'
        try:
            prediction = self.decode(content)
        except UsageError as error:  # what NaN does is up to the host
            problem = str(error)
        else:
            if same_prediction(prediction, expected):
                return
        raise UsageError(
            f'{split} with levels={list(self.neck.levels)} is not all that '
            'the rest of the host needs: it also reads what comes before the '
            f'split and is not sent ({problem}). ' + self._advice())

    def _advice(self) -> str:
        every = tuple(range(len(self.neck.in_channels)))
        if self.neck.split == 'backbone' and self.neck.levels == every:
            return ("Use split='neck' if the host has a neck, or a module "
                    'that all paths pass through')
        return ("Use split='backbone' with all its levels (no `levels`), "
                'where every path passes through')

    # ---------------------------------------------------------------- decode
    @torch.no_grad()
    def decode(self, content: FeatureFile) -> Any:
        """Run the part after the split.

        Args:
            content (FeatureFile): What a file holds.

        Returns:
            BaseDataElement: The host's data sample with its prediction.

        Raises:
            UsageError: The file belongs to another host or split, or its
                features cannot be decoded.
        """
        skeleton = self._skeleton(content)
        try:
            features = [
                dequantize(x) for x in decode_image(content.stream)
            ]
        except ImportError as error:
            raise UsageError(str(error)) from error
        except Exception as error:  # of the coder too: the data is not ours
            raise UsageError(_one_line(error)) from error
        _check_precision(self.model, features, self.device)
        receiver = _Receiver(self.neck, dict(zip(content.levels, features)),
                             dict(zip(content.levels, content.strides)))
        sample_type = getattr(
            require(self.library).structures, _SAMPLES[self.library])
        try:
            check_names(content.metainfo, sample_type)
        except ValueError as error:
            raise UsageError(f'corrupted: {error}') from error
        sample = sample_type(metainfo=content.metainfo)
        inputs = from_blank(content.inputs, self.device)
        with attached(self.model, self.neck), skeleton.replay(), \
                self.neck.changing(receiver), \
                _watching_nan(self.model, set(skeleton.outputs)) as found:
            try:
                prediction, = self.model.predict(inputs, [sample])
            except UsageError:
                raise
            except Exception as error:  # a file may lie about every shape
                raise UsageError('the host fails on what the file holds '
                                 f'({_one_line(error)})') from error
        if found:
            raise UsageError(
                f"the module '{found[0]}' reads what comes before split='"
                f"{self.neck.split}' and is not in the file")
        return prediction

    def _skeleton(self, content: FeatureFile) -> Skeleton:
        neck = self.neck
        if content.host != self.host:
            raise UsageError(
                'it was encoded with another host checkpoint (hash '
                f'{content.host[:8]}, but the loaded host has '
                f'{self.host[:8]}). Load the checkpoint that it was encoded '
                'with')
        # a level that nothing reads is not sent
        if content.split != neck.split or not set(content.levels) <= set(
                neck.levels):
            raise UsageError(
                f"it was encoded at split='{content.split}', levels="
                f'{list(content.levels)}, but the config has split='
                f"'{neck.split}', levels={sorted(neck.levels)}")
        skeleton = Skeleton(self.model, neck)
        try:
            skeleton.load_state_dict(content.outputs)
        except ValueError as error:
            raise UsageError(f'corrupted: {error}') from error
        return skeleton

    def dump(self, predictions: Iterable[Any],
             path: Union[str, Path]) -> None:
        """Write predictions as ``tools/test.py --out`` does.

        An image that is in the config's test set gets its id and its
        annotations, so that the hosts' own tools can score the file.

        Args:
            predictions (Iterable): What :meth:`decode` returned.
            path (str | Path): A pickle file, written atomically: a list of
                dicts on the CPU. The scores of every class at every pixel of
                MMSegmentation are left out.
        """
        if self.library == 'mmdet':
            from mmdet.evaluation import DumpDetResults as Dump
        else:
            from mmengine.evaluator import DumpResults as Dump
        from mmengine.fileio import dump
        metric = Dump(out_file_path=str(path))
        truth = _Annotations(self.cfg)
        unknown = 0
        for prediction in predictions:
            unknown += not truth.add_to(prediction)
            row = prediction.to_dict()
            row.pop('seg_logits', None)
            metric.process({}, [row])
        with atomic_path(str(path)) as partial:
            dump(metric.results, partial)
        if unknown:
            log(f'{unknown} of {len(metric.results)} images are not in the '
                'test set of the config: they have no annotations to be '
                'scored by', logging.WARNING)


class _Annotations:
    """Who an image is, and its ground truth, by the config's test set."""

    def __init__(self, cfg: Config) -> None:
        self.dataset = None
        self.indices: Dict[str, List[Tuple[tuple, int]]] = defaultdict(list)
        dataset = (cfg.get('test_dataloader') or {}).get('dataset')
        with DefaultScope.overwrite_default_scope(host_of(cfg)), \
                suppress(OSError, KeyError, AttributeError, TypeError):
            # without the data set's files there is nothing to score by
            self.dataset = DATASETS.build(dataset)
            for i in range(len(self.dataset)):
                parts = Path(self.dataset.get_data_info(i)['img_path']).parts
                self.indices[parts[-1]].append((parts, i))

    def add_to(self, prediction: Any) -> bool:
        """Whether exactly one image of the test set has this name."""
        name = Path(prediction.img_path).parts
        found = [
            i for parts, i in self.indices.get(name[-1], ())
            if parts[-len(name):] == name
        ]
        if len(found) != 1:
            return False
        sample = self.dataset[found[0]]['data_samples']
        known = prediction.metainfo
        prediction.set_metainfo(
            {k: v for k, v in sample.metainfo.items() if k not in known})
        for key in sample.keys():
            if key.startswith('gt_'):
                prediction.set_field(getattr(sample, key), key)
        return True


def _load(model: torch.nn.Module, checkpoint: str) -> None:
    """Load a checkpoint that may lack the estimators, but nothing else."""
    state = CheckpointLoader.load_checkpoint(
        checkpoint, map_location='cpu', logger='silent')
    state = state.get('state_dict', state)
    state = {k.removeprefix('module.'): v for k, v in state.items()}
    check_host_weights(model, state, checkpoint)
    model.load_state_dict(state, strict=False)


def image_pipeline(cfg: Config) -> List[dict]:
    """The test pipeline of a config for images without annotations.

    Args:
        cfg (Config): The config.

    Returns:
        list[dict]: Its transforms but those that load annotations.

    Raises:
        UsageError: It has none, or does not begin with loading an image file.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and ('dataset' in dataset
                                         or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    pipeline = copy.deepcopy(list(dataset.get('pipeline') or []))
    names = [str(type_name(t)) for t in pipeline]
    if 'LoadImageFromFile' not in names[:1]:
        raise UsageError(
            'the test pipeline of the config must begin with '
            f'LoadImageFromFile, but it is {names}: set '
            'test_dataloader.dataset.pipeline to one that reads image files')
    return [
        t for t, n in zip(pipeline, names)
        if not (n.startswith('Load') and 'Annotation' in n)
    ]


def same_prediction(prediction: Any, expected: Any) -> bool:
    """Whether all that a prediction holds is equal to what is expected, to
    the last bit; NaN is not."""
    a, b = (_plain(x) for x in (prediction, expected))
    if isinstance(a, dict):
        return isinstance(b, dict) and all(
            k in b and same_prediction(v, b[k]) for k, v in a.items()
            if k != 'img_path')
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(
            same_prediction(x, y) for x, y in zip(a, b))
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and a == b


def _plain(x: Any) -> Any:
    x = getattr(x, 'tensor', x)  # boxes
    return x.to_dict() if isinstance(x, BaseDataElement) else x


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f'{text[:200]}...'


def find_files(source: Union[str, Path],
               suffixes: Tuple[str, ...]) -> Iterator[Tuple[Path, str]]:
    """A file, or the files of a folder and the folders in it, sorted.

    Args:
        source (str | Path): File or folder.
        suffixes (tuple[str]): Of the files in a folder, in lower case.

    Yields:
        tuple[Path, str]: The file, and its name below the folder.

    Raises:
        UsageError: There is none.
    """
    source = Path(source)
    if source.is_file():
        yield source, source.name
        return
    if not source.is_dir():
        raise UsageError(f'{source} does not exist')
    files = [
        f for f in sorted(source.rglob('*'))
        if f.suffix.lower() in suffixes and f.is_file()
        and not f.name.startswith('.')
    ]
    if not files:
        raise UsageError(f'{source} holds no file that ends with '
                         f'{", ".join(suffixes)}')
    for file in files:
        yield file, file.relative_to(source).as_posix()
