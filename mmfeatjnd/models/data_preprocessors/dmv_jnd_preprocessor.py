"""DMV-JND in the data preprocessor of any host."""
from typing import Mapping, Optional, Union

from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from mmengine.utils import is_seq_of
from torch import Tensor

from mmfeatjnd.models.hosts import extended_class, host_class, host_scope
from mmfeatjnd.registry import MODELS
from .pixel_distortion import PixelDistortion, Strength, load_dmv_jnd


class DMVJNDPreprocessorMixin:
    """Adds a distortion to a host's data preprocessor; see
    :func:`DMVJNDPreprocessor`.

    Attributes:
        dmv_jnd (PixelDistortion): The distortion and its settings.
    """

    prefix = 'DMVJND'

    def forward(self, data: dict, training: bool = False) -> Union[dict, list]:
        """Distort the images, then do what the host does.

        Args:
            data (dict): What the data loader returns; ``inputs`` is
                (B, 3, H, W), or a list of (3, h, w), of any dtype.
            training (bool): As the host's. Defaults to False.

        Returns:
            dict | list: What the host's data preprocessor returns.
        """
        if not (self.dmv_jnd.train if training else self.dmv_jnd.test):
            return super().forward(data, training)
        images = data.get('inputs') if isinstance(data, Mapping) else None
        batch = isinstance(images, Tensor) and images.ndim == 4
        if not batch and not (is_seq_of(images, Tensor)
                              and all(x.ndim == 3 for x in images)):
            raise TypeError(
                'DMVJNDPreprocessor needs a dict with `inputs`, a tensor '
                '(B, 3, H, W) or a list of tensors (3, h, w), but '
                f'{type(self).__name__} got {_describe(data)}.')
        samples = data.get('data_samples')
        if not is_seq_of(samples, BaseDataElement):
            samples = None
        images = self.dmv_jnd(self.cast_data(images), samples, training)
        return super().forward(dict(data, inputs=images), training)


def _describe(data) -> str:
    if not isinstance(data, Mapping):
        return f'a {type(data).__name__}'
    if 'inputs' not in data:
        return f'a dict with {sorted(data)}'
    images = data['inputs']
    if isinstance(images, Tensor):
        return f'`inputs` of the shape {tuple(images.shape)}'
    if is_seq_of(images, Tensor):
        return f'`inputs` of the shapes {[tuple(x.shape) for x in images]}'
    return f'`inputs` of {type(images).__name__}'


@MODELS.register_module()
def DMVJNDPreprocessor(host: str,
                       jnd: dict,
                       distortion: str = 'dmv-jnd',
                       strength: Strength = 1.0,
                       seed: int = 0,
                       train: bool = True,
                       test: bool = True,
                       swap_channels: bool = False,
                       image_norm: Optional[dict] = None,
                       **kwargs):
    """Build a host's data preprocessor that distorts the images first.

    The data preprocessor *is* the host's: a subclass of its class, with its
    attributes, and without a key of its own in checkpoints. Images are
    distorted as they come from the data pipeline, each in its own size,
    before the host normalizes, pads and augments them.

    Args:
        host (str): The host's class with its scope, e.g.
            'mmdet.DetDataPreprocessor'.
        jnd (dict): ``config`` and ``checkpoint`` of a trained DMV-JND, see
            :func:`load_dmv_jnd`.
        distortion (str): 'dmv-jnd', or 'gaussian', white noise of the same
            mean squared error in every image, or a control; see
            :meth:`mmfeatjnd.models.DMVJND.change`. Defaults to 'dmv-jnd'.
        strength (float | Sequence[float]): Times the JND; (low, high) is
            drawn for each image. Defaults to 1.
        seed (int): Of all that is drawn. An image gets the same in every
            test, and other values in every training step; it is known by its
            id or its file, without data samples by its position. Defaults to
            0.
        train (bool): Distort in training. Defaults to True.
        test (bool): Distort in validation, testing and inference. Defaults
            to True.
        swap_channels (bool): The images come as BGR and the DMV-JND was
            trained on RGB, or the reverse. Defaults to False.
        image_norm (dict, optional): ``mean`` and ``std``, in pixels and in
            the images' order of channels, if the data pipeline normalizes
            them. Defaults to None: they come as pixels in [0, 255].
        **kwargs: The host's own arguments.

    Returns:
        BaseDataPreprocessor: The host's with :class:`DMVJNDPreprocessorMixin`.

    Raises:
        KeyError: No such host.
        TypeError: The host is no data preprocessor.
    """
    host_cls = host_class(host)
    if host_cls is None:
        raise KeyError(
            f"DMVJNDPreprocessor: host='{host}' is not registered. Give its "
            "class with its scope, 'mmpretrain.ClsDataPreprocessor', "
            "'mmdet.DetDataPreprocessor' or 'mmseg.SegDataPreProcessor', and "
            'install that library.')
    if not (isinstance(host_cls, type)
            and issubclass(host_cls, BaseDataPreprocessor)):
        raise TypeError(f"DMVJNDPreprocessor: host='{host}' is not a data "
                        'preprocessor. It goes where the host has its own.')
    # the settings are checked before a file is read
    dmv_jnd = PixelDistortion(None, distortion, strength, seed, train, test,
                              swap_channels, image_norm)
    with host_scope(host):
        preprocessor = extended_class(DMVJNDPreprocessorMixin,
                                      host_cls)(**kwargs)
    dmv_jnd.model = load_dmv_jnd(**jnd)
    preprocessor.dmv_jnd = dmv_jnd
    return preprocessor
