"""A host in two parts, with the bytes of a plan between them.

Both sides have the plan, and what follows from the size of an image: the
receiver sends a blank picture of that size through the test pipeline, and
through the part before the split as shapes only.
"""
import copy
import functools
from contextlib import nullcontext
from pathlib import Path
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    List,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from torch import Tensor

from mmfeatjnd.coding.plan_stream import decode_planned, read_plan_header
from mmfeatjnd.functional import to_channels_first, to_maps
from mmfeatjnd.hosts import adapter_of
from mmfeatjnd.models import (
    PrefixShapes,
    Quantization,
    Run,
    check_faults,
    neck_at,
)
from mmfeatjnd.models.canvas import padding_canvas
from mmfeatjnd.models.codec_plan import (
    CodecPlan,
    check_plan_host,
    load_plan,
    step_for,
)
from mmfeatjnd.models.estimator_file import read_estimator
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.models.host_half import (
    SUFFIX,
    HostHalf,
    host_half,
    load_half,
)
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.models.operations.step_policies import STEPS_PER_OCTAVE
from mmfeatjnd.models.splits import (
    Passage,
    from_blank,
    idle_modules,
    run_until_split,
    to_blank,
)
from mmfeatjnd.utils import ConfigError
from .building import build_model, prepare_host
from .checkpoints import load_host, read_weights
from .codec_images import image_pipeline
from .codec_sides import (
    CodecError,
    Receiver,
    one_line,
    watching_nan,
)

Picture = Union[str, Path, np.ndarray]
#: A file that claims a larger image is refused; 8K has a few less.
MAX_PIXELS = 1 << 25
#: Sizes of images whose blanks are kept.
_KEPT = 32


class Blank(NamedTuple):
    """What follows from the size of an image.

    Attributes:
        inputs (Tensor): Shape and dtype of the host's input, on the meta
            device.
        sample (Any): The host's data sample.
        outputs (dict): What the modules before the split return, see
            :class:`mmfeatjnd.models.PrefixShapes`.
        levels (dict[int, Tensor]): Of every level that is sent its shape
            without padding, on the meta device.
        strides (dict[int, tuple]): Of every level with its padding.
        canvas (dict[int, Tensor]): What its padding is filled with, see
            :func:`mmfeatjnd.models.canvas.padding_canvas`.
    """
    inputs: Tensor
    sample: Any
    outputs: Dict[str, List[Any]]
    levels: Dict[int, Tensor]
    strides: Dict[int, tuple]
    canvas: Dict[int, Tensor]


class FeatureCodec:
    """Sender and receiver of a host, by a plan.

    Args:
        cfg (Config): A config of any host.
        checkpoint (str): Checkpoint of the host, or the half of it that one
            side needs: a file of ``tools/model_converters/split_host.py``.
        plan (str | Path | CodecPlan): A file of ``tools/make_plan.py``, or
            its content.
        tolerance (float, optional): Nats of an image, a mean over images, by
            the plan's curve. Defaults to None: 0.02, unless ``step`` is
            given.
        step (float, optional): The step, in the unit of the plan's
            components.
        estimator (str, optional): An estimator file, for a plan whose steps
            vary over blocks; the sender's alone. Defaults to None: that of
            the checkpoint.
        device (str, optional): Defaults to None: an accelerator if there is
            one.
        amp (bool): The sender computes in half precision where PyTorch's
            autocast does. Defaults to False.

    Raises:
        CheckpointError: Checkpoint, plan or estimator cannot be used.
        ConfigError: The config has no test pipeline that reads image files.
        CodecError: There is no such device.

    Example:
        >>> from mmfeatjnd.apis import make_plan
        >>> plan = make_plan(cfg, checkpoint, images=8, nats=[1e-7, 1e-6])
        Loads checkpoint ...
        >>> codec = FeatureCodec(cfg, checkpoint, plan, step=1e-6,
        ...                      device='cpu')
        >>> data = codec.encode(image)
        >>> codec.decode(data).pred_score.shape
        torch.Size([2])
    """

    def __init__(self,
                 cfg: Config,
                 checkpoint: str,
                 plan: Union[str, Path, CodecPlan],
                 tolerance: Optional[float] = None,
                 step: Optional[float] = None,
                 estimator: Optional[str] = None,
                 device: Optional[str] = None,
                 amp: bool = False) -> None:
        self.plan = plan if isinstance(plan, CodecPlan) else load_plan(plan)
        if tolerance is not None and step is not None:
            raise ValueError('give one of tolerance and step, but got '
                             f'{tolerance} and {step}')
        if step is None:
            step = step_for(self.plan,
                            0.02 if tolerance is None else tolerance)
        self.cfg = copy.deepcopy(cfg)
        prepare_host(self.cfg)
        half = self._half(checkpoint)
        weights = None if half else read_weights(checkpoint)
        self.side = half.side if half else None
        # a receiver cannot compute it
        self._canvas = half.canvas if half else {}
        self.model = build_model(self.cfg).eval()
        self.neck = neck_at(self.model, self.plan.split,
                            sorted(self.plan.configured), estimator)
        if half:
            half.load_into(self.model)
        else:
            load_host(self.model, weights, checkpoint)
        if estimator is not None:
            self.neck.estimators.load_state_dict(
                read_estimator(self.model, estimator, self.neck))
        check_plan_host(self.plan, self.model, 'the plan')
        # what is not in the plan is read by nobody
        self.neck.read_levels = tuple(sorted(self.plan.parts))
        try:
            self.device = torch.device(device or get_device())
            self.model.to(self.device)
            self.neck.to(self.device)
        except (RuntimeError, AssertionError) as error:  # there is no such one
            raise CodecError(str(error)) from error
        if half:
            half.drop_idle(self.model)
        self.amp = amp
        self.quantization = Quantization(
            dict(type='plan', plan=self.plan), scale=step)
        self.policy = self.quantization.policy
        if self.side == 'sender' and self.quantization.needs_uncertainty:
            raise CodecError(
                'the steps of this plan follow how sure the host is of a '
                'picture, for which the sender needs the whole host. Make '
                'the plan with --no-tail, or give the whole checkpoint')
        load, *rest = image_pipeline(self.cfg)
        self._load, self._pipeline = Compose([load]), Compose([_given, *rest])
        self._checked = False
        self.blank = functools.lru_cache(maxsize=_KEPT)(self._blank)

    def _half(self, path: str) -> Optional[HostHalf]:
        """What a file holds, if it is that of one side."""
        if not str(path).endswith(SUFFIX):
            return None
        half = load_half(path)
        if half.split != self.plan.split:
            raise CheckpointError(
                f"{path} is of split='{half.split}', but the plan of "
                f"split='{self.plan.split}'. Make it again there.")
        return half

    def _needs(self, side: str) -> None:
        if self.side not in (None, side):
            raise CodecError(f'this is the {self.side}, which has not the '
                             f'weights of the {side}. Give the other half, '
                             'or the whole checkpoint')

    @torch.no_grad()
    def halves(self) -> Dict[str, HostHalf]:
        """What each side needs of the host.

        Returns:
            dict[str, HostHalf]: Of 'sender' and 'receiver'.

        Raises:
            CodecError: The host cannot be split there.
        """
        picture = np.zeros((64, 48, 3), np.uint8)
        data = self.encode(picture)  # which needs all of it
        before, after = Passage(self.model), Passage(self.model)
        with before.watch():
            self._until_split(lambda feature, level: feature,
                              *self.read(picture))
        with after.watch():
            self.decode(data)
        idle = idle_modules(self.model, before, after)
        halves = {side: host_half(self.model, side, self.plan.split, names)
                  for side, names in idle.items()}
        canvas = {i: x.cpu().contiguous()
                  for i, x in self.blank(64, 48).canvas.items()}
        halves['receiver'] = halves['receiver']._replace(canvas=canvas)
        return halves

    # ----------------------------------------------------------------- sender
    def read(self, picture: Picture) -> Tuple[Tensor, list]:
        """A picture as the host takes it.

        Args:
            picture (str | Path | np.ndarray): An image file, or pixels
                (H, W, 3) as the config's first transform loads them.

        Returns:
            tuple: Inputs (1, 3, H, W) and one data sample, without
            annotations.

        Raises:
            CodecError: It cannot be read.
        """
        name = picture if isinstance(picture, (str, Path)) else 'the picture'
        try:
            if not isinstance(picture, np.ndarray):
                picture = self._load(dict(img_path=str(picture)))['img']
            data = self._pipeline(dict(img=picture, img_path=str(name)))
        except Exception as error:  # whatever a transform may raise
            raise CodecError(f'{name}: the image cannot be read by the test '
                             f'pipeline ({one_line(error)})') from error
        data = self.model.data_preprocessor(pseudo_collate([data]), False)
        return data['inputs'], data['data_samples']

    @torch.no_grad()
    def encode(self, picture: Picture) -> bytes:
        """Run a picture through the part before the split.

        The first one is decoded, too, to see that the part after the split
        needs no more than what is sent.

        Args:
            picture (str | Path | np.ndarray): See :meth:`read`.

        Returns:
            bytes: For :meth:`decode`.

        Raises:
            CodecError: It cannot be read, or the host cannot be split there.
        """
        self._needs('sender')
        inputs, samples = self.read(picture)
        name = picture if isinstance(picture, (str, Path)) else 'the picture'
        height, width = samples[0].ori_shape[:2]
        if height * width > MAX_PIXELS:
            raise CodecError(f'{name}: a receiver refuses an image of '
                             f'{height} x {width} pixels: more than '
                             f'{MAX_PIXELS}')
        try:
            known = prepare(self.neck, [self.quantization], inputs, samples)
            run = Run(self.quantization, self.neck, **known)
            with self._precision():
                self._until_split(run.apply, inputs, samples)
            check_faults([run])
        except Exception as error:  # whatever a host makes of an image
            raise CodecError(f'{name}: the host fails on this image '
                             f'({one_line(error)})') from error
        data = self._written(run)
        if self.side is None and not self._checked:
            self.decode(data)
            self._checked = True
        return data

    def _precision(self) -> ContextManager:
        if not self.amp:
            return nullcontext()
        return torch.autocast(self.device.type)

    def _written(self, run: Run) -> bytes:
        wanted = sum(map(len, self.plan.parts.values()))
        if len(run.kept) != wanted or any(
                len(images) != 1 for images, _ in run.kept):
            raise CodecError(
                f"split='{self.plan.split}' sees several views of an image at "
                'once; a stream holds one')
        data, = self.quantization.streams(run)
        return data

    @torch.no_grad()
    def encode_features(self, features: Dict[int, Tensor],
                        size: Tuple[int, int]) -> bytes:
        """Encode features that somebody else has computed.

        Args:
            features (dict[int, Tensor]): By level what the split emits for
                one image, (1, ...), of any floating dtype.
            size (tuple[int, int]): Height and width of the image as it was
                read, pixels.

        Returns:
            bytes: For :meth:`decode`.

        Raises:
            CodecError: Levels are missing, or of other shapes than for an
                image of this size.
        """
        if self.quantization.needs_uncertainty:
            raise CodecError(
                'the steps of this plan follow how sure the host is of a '
                'picture, which features alone do not tell. Make the plan '
                'with --no-tail')
        blank = self.blank(*size)
        sample = blank.sample
        content = adapter_of(self.model).content(
            self.model, blank.inputs, [sample], False)
        run = Run(self.quantization, self.neck, [sample], content=content)
        for level in self.plan.parts:
            if level not in features:
                raise CodecError(f'level {level} is missing: the plan is of '
                                 f'levels {sorted(self.plan.parts)}')
            run.apply(features[level].to(self.device), level)
        check_faults([run])
        shapes = [q.symbols.shape[1:] for _, q in run.kept]
        if shapes != self._shapes(blank):
            raise CodecError(
                'the features have other shapes than those of an image of '
                f'{size[0]} x {size[1]} pixels at split='
                f"'{self.plan.split}'")
        return self._written(run)

    # --------------------------------------------------------------- receiver
    def decode_features(self, data: bytes) -> Dict[int, Tensor]:
        """The features of an image, without padding.

        Args:
            data (bytes): What :meth:`encode` returned.

        Returns:
            dict[int, Tensor]: By level (1, C, H, W), (1, N, C) or (1, C),
            float32.

        Raises:
            BitstreamError: Damaged, foreign, or made with another plan.
            CodecError: No image can have this size.
        """
        return self._decoded(data)[1]

    def _decoded(self, data: bytes) -> Tuple[Blank, Dict[int, Tensor]]:
        """What follows from the size of an image, and its features."""
        header = read_plan_header(data, self.policy.digest)
        blank = self.blank(*header.size)
        parts = iter(decode_planned(
            data, self.policy.digest, self._shapes(blank),
            [p.model for every in self.plan.parts.values() for p in every],
            2**(header.step / STEPS_PER_OCTAVE)))
        found = {}
        for level, every in self.plan.parts.items():
            code = self.policy.code(level, self.device)
            values = []
            for _ in every:
                part = next(parts)
                steps = part.steps.size(part.symbols)
                values.append((part.symbols * steps).to(self.device))
            found[level] = code.feature(values, blank.levels[level])
        return blank, found

    @torch.no_grad()
    def decode(self, data: bytes, name: Optional[str] = None) -> Any:
        """Run the part after the split.

        Args:
            data (bytes): What :meth:`encode` returned.
            name (str, optional): ``img_path`` of the prediction. Defaults to
                None: it has none that means anything.

        Returns:
            BaseDataElement: The host's data sample with its prediction.

        Raises:
            BitstreamError: See :meth:`decode_features`.
            CodecError: The host reads more than is sent.
        """
        self._needs('receiver')
        blank, features = self._decoded(data)
        skeleton = PrefixShapes(self.neck)
        skeleton.load_state_dict(blank.outputs)
        own = next(self.model.parameters()).dtype
        receiver = Receiver(
            self.neck, {i: x.to(own) for i, x in features.items()},
            blank.strides, blank.canvas)
        inputs = from_blank(blank.inputs, self.device)
        sample = copy.deepcopy(blank.sample)
        if name is not None:
            sample.set_metainfo(dict(img_path=name))
        with skeleton.replay(), self.neck.changing(receiver), \
                watching_nan(self.model, set(skeleton.outputs)) as found:
            try:
                prediction, = self.model.predict(inputs, [sample])
            except CodecError:
                raise
            except Exception as error:  # what NaN does is up to the host
                if not found:
                    raise CodecError('the host fails on what is sent '
                                     f'({one_line(error)})') from error
        if found:
            raise CodecError(
                f"the module '{found[0]}' reads what comes before split='"
                f"{self.plan.split}' and is not sent. {self._advice()}")
        return prediction

    def _advice(self) -> str:
        every = tuple(range(len(self.neck.in_channels or ())))
        if self.plan.split == 'backbone' and self.neck.levels == every:
            return ("Use split='neck' if the host has a neck, or a module "
                    'that all paths pass through')
        return ("Use split='backbone' with all its levels (no `levels`), "
                'where every path passes through')

    def _shapes(self, blank: Blank) -> List[torch.Size]:
        """Of the components of every part, (K, h, w)."""
        shapes = []
        for level, every in self.plan.parts.items():
            for part, x in zip(every, to_maps(blank.levels[level])):
                blocks = (-(-n // part.block) for n in x.shape[2:])
                shapes.append(torch.Size([part.gain.numel(), *blocks]))
        return shapes

    def _blank(self, height: int, width: int) -> Blank:
        """What follows from a size: see :class:`Blank`."""
        if height * width > MAX_PIXELS:  # before anything is made of it
            raise CodecError(f'an image of {height} x {width} pixels is '
                             f'larger than any that is read ({MAX_PIXELS} '
                             'pixels)')
        with torch.no_grad():
            inputs, samples = self.read(
                np.zeros((height, width, 3), np.uint8))
            levels, strides = {}, {}
            content = adapter_of(self.model).content(
                self.model, inputs, samples, False)

            def look(feature: Tensor, level: int, visit) -> Tensor:
                levels[level] = feature.to('meta')
                return feature

            look.margin = self.quantization.margin
            run = Run(look, self.neck, samples, content=content)

            def keep(feature: Tensor, level: int) -> Tensor:
                layout = self.neck.layout_of(feature, level)
                strides[level] = to_channels_first(feature, layout).stride()
                return run.apply(feature, level)

            skeleton = PrefixShapes(self.neck)
            # a receiver has no weights of this part
            front, canvas = inputs.to('meta'), self._canvas
            if self.side != 'receiver':
                front = inputs
                canvas = padding_canvas(self.neck, inputs, samples, content)
            self._until_split(keep, front, samples, skeleton)
        missing = sorted(set(self.plan.parts) - set(levels))
        if missing:
            raise ConfigError(
                f"split='{self.plan.split}' does not emit level {missing[0]} "
                'of the plan')
        return Blank(to_blank(inputs), samples[0], skeleton.state_dict(),
                     levels, strides, canvas)

    def _until_split(self,
                     change: Callable[[Tensor, int], Tensor],
                     inputs: Tensor,
                     samples: list,
                     skeleton: Optional[PrefixShapes] = None) -> None:
        """A pass of the host that ends where all levels are known."""
        watch = nullcontext() if skeleton is None else skeleton.record()
        run_until_split(
            self.neck, change, self.plan.parts,
            lambda: self.model.predict(inputs, copy.deepcopy(samples)), watch)


def _given(results: dict) -> dict:
    """What loading an image leaves, of pixels that are there."""
    results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
    return results
