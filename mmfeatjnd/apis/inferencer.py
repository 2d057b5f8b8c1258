"""FeatJND on pictures, in a few lines of Python."""
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmfeatjnd.models import BaseOperation, JNDMapRecorder, Perturbation
from mmfeatjnd.models.estimator_file import load_estimator, neck_at
from mmfeatjnd.models.forward_runs import every_forward
from mmfeatjnd.models.hosts import check_host_weights
from mmfeatjnd.models.run import Measurements, Run, columns_of
from mmfeatjnd.utils import (
    ConfigError,
    check_writable,
    config_library,
    load_safely,
    read_config,
    unwrapped,
)
from .building import prepare_host
from .checkpoints import read_weights
from .zoo import find_model, get_checkpoint


@contextmanager
def changing_features(model: nn.Module,
                      operation: BaseOperation,
                      split: Optional[str] = None,
                      levels: Optional[Sequence[int]] = None,
                      estimator: Optional[str] = None
                      ) -> Iterator[List[Run]]:
    """Inside, an operation changes the features of every pass of a model.

    Args:
        model (nn.Module): A host, with FeatJND or plain.
        operation (BaseOperation): E.g. :class:`mmfeatjnd.models.Perturbation`
            or :class:`mmfeatjnd.models.Quantization`.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the model's, else 'backbone'.
        levels (Sequence[int], optional): See there. Defaults to None: all.
        estimator (str, optional): An estimator file. A model with FeatJND
            keeps it from then on. Defaults to None: the model's estimators.

    Yields:
        list[Run]: The runs so far, one for each pass; ``run.measured`` holds
        what was measured of its images.

    Example:
        >>> with changing_features(model, Perturbation('gaussian', 0.5)) as r:
        ...     prediction, = model.predict(torch.rand(1, 3, 32, 32), None)
        >>> len(r)  # `predict` is no `forward`
        0
        >>> with changing_features(model, Perturbation('gaussian', 0.5)) as r:
        ...     logits = model(torch.rand(1, 3, 32, 32))
        >>> [round(float(run.measured['nrmse']), 3) for run in r]
        [0.5]
    """
    model = unwrapped(model)
    neck = neck_at(model, split, levels, estimator)
    if estimator is not None:
        load_estimator(model, estimator, neck)
    with every_forward(neck, operation) as runs:
        yield runs


class Answer(NamedTuple):
    """What a host says of a picture, with and without a change.

    Attributes:
        prediction (BaseDataElement): Of the host as it is.
        changed (BaseDataElement): With the features that an operation made.
        map (Tensor, optional): (H, W), the JND of every place of the picture
            as the host takes it, without padding: how much each channel may
            change, in units of its own standard deviation. None without an
            estimator.
        measured (dict[str, float]): What the operation measured: ``nrmse``
            and, of a quantization, ``bits_per_element`` and, with
            ``coded=True``, ``coded_bytes`` and ``bits_per_pixel``.

    Example:
        >>> answer = Answer('cat', 'dog', None, dict(nrmse=0.5))
        >>> answer.prediction == answer.changed
        False
    """
    prediction: Any
    changed: Any
    map: Optional[Tensor]
    measured: Dict[str, float]


class FeatJNDInferencer:
    """What pictures tolerate, and what is left of a host's answer.

    On top of the host's own inferencer (``DetInferencer``,
    ``ImageClassificationInferencer``, ``MMSegInferencer``), whose pipeline,
    batches and pictures it takes.

    Args:
        config (str | Path | Config): A config, of FeatJND or of a stock host,
            its file, or its name, see :func:`mmfeatjnd.apis.find_model`.
        checkpoint (str, optional): Checkpoint of the host, with or without
            estimator. Defaults to None: of a name what its index says.
        estimator (str, optional): An estimator file. Defaults to None: that
            of the checkpoint, if there is one.
        split (str, optional): See :func:`mmfeatjnd.models.neck_at`. Defaults
            to None: the config's or the file's, else 'backbone'.
        levels (Sequence[int], optional): See there. Defaults to None: all.
        device (str, optional): Defaults to None: an accelerator if there is
            one.

    Raises:
        CheckpointError: The weights are not there, or the estimator is of
            another host.
        ConfigError: There is no such split, or no model that is known.

    Example:
        >>> inferencer = FeatJNDInferencer(cfg, checkpoint, device='cpu')
        Loads checkpoint ...
        >>> answer, = inferencer(image, Perturbation('gaussian', 0.5))
        >>> round(answer.measured['nrmse'], 3), tuple(answer.map.shape)
        (0.5, (32, 32))
    """

    def __init__(self,
                 config,
                 checkpoint: Optional[str] = None,
                 estimator: Optional[str] = None,
                 split: Optional[str] = None,
                 levels: Optional[Sequence[int]] = None,
                 device: Optional[str] = None) -> None:
        load_safely()
        if isinstance(config, str) and not Path(config).is_file():
            checkpoint = checkpoint or get_checkpoint(config)
            config = find_model(config).config
        if checkpoint is None:
            raise ConfigError('which checkpoint? Give one, or the name of a '
                              'model in place of the config')
        self.cfg = config if isinstance(config, Config) else \
            read_config(config)
        prepare_host(self.cfg)
        weights = read_weights(str(checkpoint))
        self.host = _host_inferencer(self.cfg, str(checkpoint), device)
        self.model = unwrapped(self.host.model)
        check_host_weights(self.model, weights, str(checkpoint))
        self.neck = neck_at(self.model, split, levels, estimator)
        if estimator is not None:
            load_estimator(self.model, estimator, self.neck)

    def __call__(self,
                 images,
                 operation: Optional[BaseOperation] = None,
                 batch_size: int = 1,
                 show: bool = False,
                 out_dir: Optional[str] = None) -> List[Answer]:
        """Look at pictures.

        Args:
            images (str | np.ndarray | list): Path of a picture or a folder,
                pixels (H, W, 3) in the order of the host (BGR), or a list of
                these.
            operation (BaseOperation, optional): What is done to the features.
                Defaults to None: noise of the learned map, of an RMS of 1 in
                units of the channels' standard deviations; without an
                estimator white noise of NRMSE 0.5.
            batch_size (int): Pictures at once. Defaults to 1.
            show (bool): Show predictions in a window. Defaults to False.
            out_dir (str, optional): Folder for pictures of the
                ``predictions``, of the ``changed`` ones and of the ``maps``.
                Defaults to None: none are written.

        Returns:
            list[Answer]: One for each picture.

        Raises:
            WriteError: ``out_dir`` cannot be written.
        """
        if out_dir is not None:
            check_writable(out_dir, folder=True)
        operation = operation or self._default()
        given = self.host._inputs_to_list(images)
        answers: List[Answer] = []
        for found in self.host.preprocess(given, batch_size=batch_size):
            # with the inputs, but for classifiers
            data = found if isinstance(found, dict) else found[1]
            answers += self._batch(data, operation)
        for name, predictions in (
            ('predictions', [a.prediction for a in answers]),
                ('changed', [a.changed for a in answers])):
            self._draw(given, predictions, show,
                       out_dir and str(Path(out_dir, name)))
        if out_dir is not None and answers and answers[0].map is not None:
            self._draw_maps(given, answers, Path(out_dir, 'maps'))
        return answers

    def _default(self) -> BaseOperation:
        if self.neck.estimators:
            return Perturbation('featjnd', 1.0, definition='channel')
        return Perturbation('gaussian', 0.5)

    @torch.no_grad()
    def _batch(self, data: dict, operation: BaseOperation) -> List[Answer]:
        recorder, sizes = JNDMapRecorder(), []

        def look(module, args, kwargs):
            inputs = args[0] if args else kwargs['inputs']
            sizes.append(inputs.shape[-2:])

        with ExitStack() as stack:
            stack.callback(self.model.register_forward_pre_hook(
                look, with_kwargs=True).remove)
            if self.neck.estimators:
                stack.enter_context(every_forward(self.neck, recorder))
            clean = self.host.forward(data)
        with every_forward(self.neck, operation) as runs:
            changed = self.host.forward(data)
        measured = Measurements()
        measured.add(runs)
        maps: List[Optional[Tensor]] = [None] * len(clean)
        if recorder.maps:
            maps = [_content(m, p) for m, p in zip(
                recorder.heat_map(sizes[0]), clean)]
        return [
            Answer(a, b, m, operation.summary(
                columns_of([row], operation.totals)) if row else {})
            for a, b, m, row in zip(clean, changed, maps, measured.rows())
        ]

    def _draw(self, images: list, predictions: list, show: bool,
              folder: Optional[str]) -> None:
        if not show and folder is None:
            return
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        name = 'show_dir' if config_library(self.cfg) == 'mmpretrain' else \
            'img_out_dir'
        self.host.visualize(images, predictions, show=show,
                            **({} if folder is None else {name: folder}))

    def _draw_maps(self, images: list, answers: List[Answer],
                   folder: Path) -> None:
        import mmcv

        from mmfeatjnd.visualization import draw_heat_maps
        folder.mkdir(parents=True, exist_ok=True)
        for i, (image, answer) in enumerate(zip(images, answers)):
            pixels = image
            name = f'{i:06d}'
            if not isinstance(image, np.ndarray):
                pixels, name = mmcv.imread(str(image)), Path(image).stem
            height, width = answer.map.shape
            pixels = mmcv.imresize(pixels, (width, height))
            draw_heat_maps([mmcv.bgr2rgb(pixels)], [answer.map.cpu()],
                           folder / f'{name}.png')


def _host_inferencer(cfg: Config, checkpoint: str, device: Optional[str]):
    """The inferencer of the host's library."""
    library = config_library(cfg)
    if library == 'mmdet':
        from mmdet.apis import DetInferencer
        return DetInferencer(cfg, checkpoint, device, show_progress=False)
    if library == 'mmpretrain':
        from mmpretrain.apis import ImageClassificationInferencer
        return ImageClassificationInferencer(cfg, checkpoint, device)
    if library == 'mmseg':
        from mmseg.apis import MMSegInferencer
        return MMSegInferencer(cfg, checkpoint, device=device,
                               show_progress=False)
    raise ConfigError(
        f'the model of {cfg.filename} is of none of the host libraries: set '
        'default_scope')


def _content(heat: Tensor, prediction: Any) -> Tensor:
    """A map without what is padded."""
    shape = prediction.get('img_shape', None)
    if shape is None:
        return heat
    return heat[:shape[0], :shape[1]]
