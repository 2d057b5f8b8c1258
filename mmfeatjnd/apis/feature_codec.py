"""Run a host in two parts, with a file of features between them."""
import copy
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mmfeatjnd.coding import decode_image
from mmfeatjnd.coding.feature_file import FeatureFile, check_names, pack
from mmfeatjnd.compat import host_library, require
from mmfeatjnd.evaluation.predictions import same_prediction
from mmfeatjnd.functional import dequantize
from mmfeatjnd.models import (
    Quantization,
    Run,
    check_faults,
    neck_at,
)
from mmfeatjnd.models.estimator_file import host_hash, read_estimator
from mmfeatjnd.models.forward_runs import prepare
from mmfeatjnd.models.splits import PrefixShapes, from_blank, to_blank
from mmfeatjnd.utils import ConfigError
from .building import build_model, prepare_host
from .checkpoints import load_host, read_weights
from .codec_images import ImageReader
from .codec_sides import (
    CodecError,
    Receiver,
    Sender,
    SplitReached,
    check_precision,
    one_line,
    watching_nan,
)

HASH_DIGITS = 16
_SAMPLES = dict(
    mmdet='DetDataSample', mmpretrain='DataSample', mmseg='SegDataSample')


class FeatureCodec:
    """The part of a host before the split, and the part after it.

    Args:
        cfg (Config): A config of any host.
        checkpoint (str): Checkpoint of the host, with or without estimators.
        estimator (str, optional): A file of
            :func:`mmfeatjnd.apis.save_estimator`. Defaults to None: the
            checkpoint's, if a policy needs it.
        device (str, optional): Defaults to None: an accelerator if there is
            one.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the config's; 'backbone' for a plain host.
        levels (Sequence[int], optional): See there. Defaults to None: all.

    Raises:
        CheckpointError: The checkpoint or the estimator cannot be used.
        ConfigError: The config has no neck, or is of no host.
        CodecError: There is no such device.

    Example:
        >>> from mmfeatjnd.coding import feature_file
        >>> codec = FeatureCodec(cfg, checkpoint, device='cpu')
        >>> data = codec.encode(image, Quantization('one-step'))
        >>> prediction = codec.decode(feature_file.unpack(data))
        >>> prediction.pred_score.shape
        torch.Size([2])
    """

    def __init__(self,
                 cfg: Config,
                 checkpoint: str,
                 estimator: Optional[str] = None,
                 device: Optional[str] = None,
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None) -> None:
        self.cfg = copy.deepcopy(cfg)
        prepare_host(self.cfg)
        weights = read_weights(checkpoint)
        self.model = build_model(self.cfg).eval()
        self.neck = neck_at(self.model, split, levels, estimator)
        load_host(self.model, weights, checkpoint)
        if estimator is not None:
            self.neck.estimators.load_state_dict(
                read_estimator(self.model, estimator, self.neck))
        try:
            self.device = torch.device(device or get_device())
            self.model.to(self.device)
            self.neck.to(self.device)
        except (RuntimeError, AssertionError) as error:  # there is no such one
            raise CodecError(str(error)) from error
        library = host_library(self.model)
        if library is None:
            raise ConfigError(f'{type(self.model).__name__} belongs to none '
                              f'of {", ".join(_SAMPLES)}')
        self.library = library
        self.host = host_hash(self.model)[:HASH_DIGITS]
        self._read = ImageReader(self.cfg, self.model.data_preprocessor)
        self._checked = False

    # ---------------------------------------------------------------- encode
    def load(self, path: Union[str, Path]) -> Tuple[Tensor, list]:
        """Read an image as the host's test pipeline does.

        Args:
            path (str | Path): The image.

        Returns:
            tuple: Inputs (1, 3, H, W) and one data sample, without
            annotations.

        Raises:
            CodecError: It cannot be read.
        """
        return self._read(path)

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
            CodecError: The image cannot be read, or the host cannot be split
                there.
        """
        quantization.check(self.neck)
        inputs, samples = self.load(path)
        metainfo = dict(copy.deepcopy(samples[0].metainfo))
        metainfo['img_path'] = name or Path(path).name
        given = copy.deepcopy(samples)
        skeleton = PrefixShapes(self.neck)
        try:
            known = prepare(self.neck, [quantization], inputs, given)
            run = Run(quantization, self.neck, **known)
            sender = Sender(run)
            with self.neck.changing(sender), skeleton.record(), \
                    suppress(SplitReached):
                self.model.predict(inputs, samples)
            check_faults([run])
        except Exception as error:  # whatever a host makes of an image
            raise CodecError(f'{path}: the host fails on this image '
                             f'({one_line(error)})') from error
        if any(len(images) != 1 for images, *_ in run.kept):
            raise CodecError(
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
            stream=quantization.streams(run)[0])
        try:
            data = pack(content)
        except (TypeError, ValueError) as error:
            raise CodecError(f'{path}: {error}') from error
        if not self._checked:
            with self.neck.run(quantization, **known) as run:
                expected, = self.model.predict(inputs, given)
            self._check(content, expected, len(run.kept))
            self._checked = True
        return data

    def _check(self, content: FeatureFile, expected: Any,
               visits: int) -> None:
        """Compare with the whole host under the same quantization."""
        split = f"split='{self.neck.split}'"
        if visits != len(content.levels):
            raise CodecError(
                f'the host runs {split} several times for one image, as a '
                'sliding window does; a feature file holds one pass. For '
                "MMSegmentation set model.test_cfg.mode='whole'")
        problem = 'its prediction changes'
        try:
            prediction = self.decode(content)
        except CodecError as error:  # what NaN does is up to the host
            problem = str(error)
        else:
            if same_prediction(prediction, expected):
                return
        raise CodecError(
            f'{split} with levels={list(self.neck.levels)} is not all that '
            'the rest of the host needs: it also reads what comes before the '
            f'split and is not sent ({problem}). ' + self._advice())

    def _advice(self) -> str:
        every = tuple(range(len(self.neck.in_channels or ())))
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
            CodecError: The file belongs to another host or split, or its
                features cannot be decoded.
        """
        skeleton = self._skeleton(content)
        try:
            features = [
                dequantize(x) for x in decode_image(content.stream)
            ]
        except ImportError as error:
            raise CodecError(str(error)) from error
        except Exception as error:  # of the coder too: the data is not ours
            raise CodecError(one_line(error)) from error
        check_precision(self.model, features, self.device)
        receiver = Receiver(self.neck, dict(zip(content.levels, features)),
                             dict(zip(content.levels, content.strides)))
        sample_type = getattr(
            require(self.library).structures, _SAMPLES[self.library])
        try:
            check_names(content.metainfo, sample_type)
        except ValueError as error:
            raise CodecError(f'corrupted: {error}') from error
        sample = sample_type(metainfo=content.metainfo)
        inputs = from_blank(content.inputs, self.device)
        with skeleton.replay(), self.neck.changing(receiver), \
                watching_nan(self.model, set(skeleton.outputs)) as found:
            try:
                prediction, = self.model.predict(inputs, [sample])
            except CodecError:
                raise
            except Exception as error:  # a file may lie about every shape
                raise CodecError('the host fails on what the file holds '
                                 f'({one_line(error)})') from error
        if found:
            raise CodecError(
                f"the module '{found[0]}' reads what comes before split='"
                f"{self.neck.split}' and is not in the file")
        return prediction

    def _skeleton(self, content: FeatureFile) -> PrefixShapes:
        neck = self.neck
        if content.host != self.host:
            raise CodecError(
                'it was encoded with another host checkpoint (hash '
                f'{content.host[:8]}, but the loaded host has '
                f'{self.host[:8]}). Load the checkpoint that it was encoded '
                'with')
        # a level that nothing reads is not sent
        if content.split != neck.split or not set(content.levels) <= set(
                neck.levels or content.levels):
            raise CodecError(
                f"it was encoded at split='{content.split}', levels="
                f'{list(content.levels)}, but here the host is split at '
                f"'{neck.split}', {neck.configured}")
        skeleton = PrefixShapes(neck)
        try:
            skeleton.load_state_dict(content.outputs)
        except ValueError as error:
            raise CodecError(f'corrupted: {error}') from error
        return skeleton
