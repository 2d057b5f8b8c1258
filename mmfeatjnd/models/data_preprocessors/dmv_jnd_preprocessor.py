"""DMV-JND in the data preprocessor of any host."""
from dataclasses import fields
from typing import Any, Mapping, Union

from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from mmengine.utils import is_seq_of
from torch import Tensor

from mmfeatjnd.models.hosts import extended_class, host_class, host_scope
from mmfeatjnd.registry import MODELS
from .pixel_distortion import PixelDistortion


class DMVJNDPreprocessorMixin:
    """What :func:`build_dmv_jnd_preprocessor` adds to a host's data
    preprocessor.

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


def _describe(data: Any) -> str:
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


@MODELS.register_module(name='DMVJNDPreprocessor')
def build_dmv_jnd_preprocessor(host: str, jnd: dict,
                               **kwargs: Any) -> BaseDataPreprocessor:
    """Build a host's data preprocessor that distorts the images first;
    ``type='mmfeatjnd.DMVJNDPreprocessor'`` in configs.

    The data preprocessor *is* the host's: a subclass of its class, with its
    attributes, and without a key of its own in checkpoints. Images are
    distorted as they come from the data pipeline, each in its own size,
    before the host normalizes, pads and augments them.

    Args:
        host (str): The host's class with its scope, e.g.
            'mmdet.DetDataPreprocessor'.
        jnd (dict): ``config`` and ``checkpoint`` of a trained DMV-JND, see
            :func:`mmfeatjnd.models.load_dmv_jnd`.
        **kwargs: The other settings of :class:`PixelDistortion`, e.g.
            ``distortion`` and ``strength``, and the host's own arguments.

    Returns:
        BaseDataPreprocessor: The host's with :class:`DMVJNDPreprocessorMixin`.

    Raises:
        KeyError: No such host.
        TypeError: The host is no data preprocessor, or does not know an
            argument.
        ValueError: A setting is wrong, or the DMV-JND cannot be loaded.
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
    settings = {
        field.name: kwargs.pop(field.name)
        for field in fields(PixelDistortion) if field.name in kwargs
    }
    with host_scope(host):
        preprocessor = extended_class(DMVJNDPreprocessorMixin,
                                      host_cls)(**kwargs)
    preprocessor.dmv_jnd = PixelDistortion(jnd, **settings)
    return preprocessor
