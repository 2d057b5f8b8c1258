"""The one module through which features change."""
from contextlib import contextmanager
from typing import (
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from mmengine.config import Config
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatjnd.functional import LAYOUTS, channel_dim
from mmfeatjnd.models.hosts import CheckpointError
from mmfeatjnd.models.run import Operation, Run
from mmfeatjnd.models.splits import attached
from mmfeatjnd.registry import MODELS
from mmfeatjnd.utils import ConfigError, unwrapped

#: Other names of a split point; CompressAI-Vision's where it has one. There
#: `r2` is the output of ResNet's second stage group (`layer1` in OpenMMLab)
#: and `c2` means the outputs of FPN's lateral convolutions.
ALIASES = {
    'fpn': 'neck',
    'r2': 'backbone.layer1',
    'r3': 'backbone.layer2',
    'r4': 'backbone.layer3',
    'r5': 'backbone.layer4',
    'c2': 'neck.lateral_convs',
}


@MODELS.register_module()
class FeatJNDNeck(BaseModule):
    """Wraps the host's neck, holds the estimators, and runs operations.

    A sequence of features in, a tuple of features out. Outside of
    :meth:`run` the features pass untouched, so the host computes what it did
    before. A checkpoint of the plain host loads: its keys ``neck.*`` are
    mapped to ``neck.neck.*``.

    In a config it takes the place of the host's neck. For a host without one
    there is :func:`mmfeatjnd.models.neck_at`: a neck that is no part of the
    host and sees its features by forward hooks.

    Args:
        estimator (dict, optional): Config of the estimator without
            ``in_channels``. Defaults to None: there is none, and operations
            that need a JND cannot run.
        neck (dict | list, optional): The host's own neck. Defaults to None.
        split (str): The split point. 'backbone': what the host's backbone
            emits; 'neck' (or 'fpn'): what its neck emits; else the name of a
            module of the host. See :data:`ALIASES`. Defaults to 'backbone'.
        in_channels (int | Sequence[int], optional): Channels of every level
            that the split emits. Defaults to None: taken from the host's neck
            for the splits 'backbone' and 'neck'; without an estimator learned
            from the first batch.
        levels (Sequence[int], optional): The levels to work on; the others
            pass through. Defaults to None: all that the split emits.
        shared (bool): One estimator for all levels, which must have the same
            number of channels. Defaults to False.
        layout (str, optional): 'NCHW', or 'NHWC': maps have their channels
            last, as those of ViTDet's and SAM's layers. Defaults to None:
            found out, see :meth:`layout_of`.
        init_cfg (dict, optional): As in MMEngine. Defaults to None.
    """

    def __init__(self,
                 estimator: Optional[dict] = None,
                 neck: Optional[Union[dict, list]] = None,
                 split: str = 'backbone',
                 in_channels: Optional[Union[int, Sequence[int]]] = None,
                 levels: Optional[Sequence[int]] = None,
                 shared: bool = False,
                 layout: Optional[str] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.split = ALIASES.get(split, split)
        self.shared = shared
        if layout not in (None, *LAYOUTS):
            raise ValueError(f'FeatJNDNeck: layout must be one of {LAYOUTS}, '
                             f'but got {layout!r}')
        self.layout = layout
        self.neck = MODELS.build(neck) if neck is not None else None
        if self.split == 'neck' and self.neck is None and estimator:
            raise ValueError(
                f"FeatJNDNeck: split='{split}' works on the output of the "
                "host's neck, but none is given. Pass neck=... or use "
                "split='backbone'.")
        if isinstance(in_channels, int):
            in_channels = [in_channels]
        if in_channels is None:
            in_channels = self._host_channels(neck)
        if in_channels is None and estimator is not None:
            raise ValueError(
                f"FeatJNDNeck: the channels at split='{self.split}' are not "
                'known. Set in_channels=[...], one number for each level that '
                'the split emits.')
        #: tuple[int], optional: Channels of all levels; None: not known yet.
        self.in_channels: Optional[Tuple[int, ...]] = None
        #: tuple[int], optional: The configured levels; None: all, and their
        #: number is not known yet.
        self.levels = None if levels is None else tuple(levels)
        if in_channels is not None:
            self.learn_channels(in_channels)
        self._configured = self.in_channels, self.levels
        self._checked: List[Operation] = []
        #: Of inputs of padding alone, by their size.
        self.canvases: Dict[tuple, Dict[int, Tensor]] = {}
        self.build_estimators(estimator)
        #: What :meth:`changing` has set: (feature, level) -> feature.
        self.change: Optional[Callable[[Tensor, int], Tensor]] = None
        self._register_load_state_dict_pre_hook(self._map_host_keys)
        self._register_load_state_dict_pre_hook(self._check_estimator_keys)

    # ------------------------------------------------------------ building
    def _host_channels(self, cfg) -> Optional[Sequence[int]]:
        """What the host's neck says about its input or output; None if it
        says nothing."""
        name, end = dict(
            backbone=('in_channels', 0),
            neck=('out_channels', -1)).get(self.split, (None, 0))
        neck = self.neck
        if isinstance(cfg, (list, tuple)):
            neck, cfg = neck[end], cfg[end]

        def value(key):  # not every neck keeps its arguments
            return getattr(neck, key, None) or (cfg or {}).get(key)

        channels = value(name) if name else None
        if isinstance(channels, int) and self.split == 'neck':
            inputs = value('in_channels')
            outputs = len(inputs) if isinstance(inputs, (list, tuple)) else 1
            channels = [channels] * (value('num_outs') or outputs)
        if isinstance(channels, int):
            return [channels]
        if isinstance(channels, (list, tuple)) and channels:
            return channels
        return None

    def learn_channels(self, channels: Sequence[int]) -> None:
        """Say what the split emits, once it is known.

        Args:
            channels (Sequence[int]): Number of channels of every level.

        Raises:
            ConfigError: ``levels`` or ``shared`` do not fit.
        """
        num = len(channels)
        levels = tuple(range(num)) if self.levels is None else self.levels
        if (not levels or len(set(levels)) != len(levels)
                or not all(0 <= i < num for i in levels)):
            raise ConfigError(
                f'FeatJNDNeck: levels={list(levels)} must be different '
                f'indices into in_channels={list(channels)} (0 to '
                f'{num - 1}).')
        if self.shared and len({channels[i] for i in levels}) > 1:
            raise ConfigError(
                'FeatJNDNeck: shared=True needs the same number of channels '
                f'in all levels, but in_channels={list(channels)}.')
        self.in_channels, self.levels = tuple(channels), levels

    def build_estimators(self, cfg: Optional[dict]) -> None:
        """Build new estimators.

        Args:
            cfg (dict, optional): Config without ``in_channels``, which are
                known. None: there are none.
        """
        levels = () if cfg is None else self.levels
        self.estimators = nn.ModuleList(
            MODELS.build(dict(cfg, in_channels=self.in_channels[i]))
            for i in (levels[:1] if self.shared else levels))
        self._estimator = cfg

    # ------------------------------------------------------------- the host
    #: The host, once somebody has told; no submodule.
    host: Optional[nn.Module] = None
    #: Whether the neck is no part of its host.
    detached = False

    def bind(self, host: nn.Module) -> None:
        """Know the host, so that :meth:`run` reaches a split inside it.

        Args:
            host (nn.Module): The host, with this neck or without one.
        """
        if self.host is not None and self.host is not host:
            # what was learned of another one
            self.in_channels, self.levels = self._configured
            self.forget()
        # not a submodule: it is the other way round
        object.__setattr__(self, 'host', host)
        self.detached = all(m is not self for m in host.modules())
        if self.detached:  # nobody else does what is done to the host
            self.eval().requires_grad_(False)
            for p in host.parameters():
                self.to(p.device)
                break

    def settings(self) -> dict:
        """The arguments that build this neck without the host's own.

        Returns:
            dict: Plain numbers, strings, lists and dicts.
        """
        estimator = None
        if self._estimator is not None:
            estimator = Config(dict(self._estimator)).to_dict()
            if not isinstance(estimator['type'], str):  # of a new-style config
                name = type(self.estimators[0]).__name__
                estimator['type'] = f'mmfeatjnd.{name}'
        return dict(
            estimator=estimator,
            split=self.split,
            in_channels=list(self.in_channels),
            levels=list(self.levels),
            shared=self.shared,
            layout=self.layout)

    @property
    def hooked(self) -> bool:
        """bool: Whether the split is reached by forward hooks: it is a module
        inside the host, or the neck is no part of the host."""
        return self.detached or self.split not in ('backbone', 'neck')

    @property
    def by_region(self) -> bool:
        """bool: Whether the split lies where a detector looks at regions, of
        which a picture may have none."""
        return self.split.startswith('roi_head')

    @property
    def configured(self) -> str:
        """str: What is known of the levels, for errors."""
        levels, channels = (
            None if x is None else list(x)
            for x in (self.levels, self.in_channels))
        return f'levels={levels} and in_channels={channels}'

    # ---------------------------------------------------------- checkpoints
    def _map_host_keys(self, state_dict, prefix, *args) -> None:
        """neck.X of the plain host -> neck.neck.X."""
        own = (f'{prefix}neck.', f'{prefix}estimators.')
        if self.neck is None:
            return
        for key in [k for k in state_dict if k.startswith(prefix)]:
            if not key.startswith(own):
                state_dict[f'{prefix}neck.{key[len(prefix):]}'] = \
                    state_dict.pop(key)

    def _check_estimator_keys(self, state_dict, prefix, *args) -> None:
        """MMEngine only warns when shapes differ; that would test noise."""
        given = {
            k[len(prefix):]: tuple(v.shape)
            for k, v in state_dict.items()
            if k.startswith(f'{prefix}estimators.')
        }
        expected = {
            f'estimators.{k}': tuple(v.shape)
            for k, v in self.estimators.state_dict().items()
        }
        if not given or given == expected:
            return
        wrong = [
            f'{k}: checkpoint {given.get(k, "has none")}, '
            f'model {expected.get(k, "has none")}'
            for k in sorted({*given, *expected})
            if given.get(k) != expected.get(k)
        ]
        raise CheckpointError(
            'The estimator in this checkpoint belongs to another host, split '
            f'or estimator config ({len(wrong)} of {len(expected)} entries '
            f'differ, e.g. {wrong[0]}). Use the config that it was trained '
            'with.')

    # -------------------------------------------------------------- running
    #: Levels that the part of the host after the split reads; None: not
    #: asked yet, see :func:`mmfeatjnd.models.find_read_levels`.
    read_levels: Optional[Tuple[int, ...]] = None
    #: Channels that the layers of each module at the split emit.
    emitted: Tuple[Optional[int], ...] = ()
    #: Whether forward hooks on the modules at the split are in place.
    attached = False
    #: (R,), int64: the image of each region, where the split lies behind a
    #: RoI extractor.
    row_images: Optional[Tensor] = None

    def forget(self) -> None:
        """Ask the host anew what it reads, and check operations anew."""
        self.read_levels = None
        self._checked.clear()
        self.canvases.clear()

    def check(self, operation: Operation) -> None:
        """Raise if an operation needs what the neck does not have. Asked once
        for each, since it waits for the device.

        Args:
            operation (Callable): See :meth:`run`.

        Raises:
            CheckpointError: It needs estimators, and they were never trained.
        """
        if hasattr(operation, 'check') and all(
                o is not operation for o in self._checked):
            operation.check(self)
            self._checked.append(operation)

    @property
    def active_levels(self) -> Tuple[int, ...]:
        """tuple[int]: The configured levels that something reads; the others
        are neither changed nor measured. Empty, as long as nothing is known
        of the split."""
        return tuple(i for i in self.levels or () if self.works_on(i))

    def works_on(self, level: int) -> bool:
        """Whether a level is configured, and read as far as is known."""
        return all(known is None or level in known
                   for known in (self.levels, self.read_levels))

    def active_estimators(self) -> List[nn.Module]:
        """The estimators of the levels that something reads."""
        if self.shared or not self.estimators:
            return list(self.estimators)
        return [self.estimator_of(i) for i in self.active_levels]

    def layout_of(self, feature: Tensor, level: int) -> str:
        """Where a map has its channels.

        As ``layout`` says; else as the layers of the module at the split
        say, if they know what they emit; else where the configured number of
        channels is.

        Args:
            feature (Tensor): What the split emits.
            level (int): Its index.

        Returns:
            str: 'NCHW' or 'NHWC'; 'NCHW' for all that is no map.

        Raises:
            ValueError: The configured number of channels is nowhere, or the
                module emits another one.
        """
        channels = self.in_channels and self.in_channels[level]
        if feature.dim() != 4:
            self._check_channels(feature.size(channel_dim(feature)), level)
            return 'NCHW'
        first, last = feature.size(1), feature.size(3)
        layout = self.layout
        if layout is None:
            emitted = self.emitted[level] if level < len(self.emitted) \
                else None
            known = emitted if emitted in (first, last) else channels
            layout = 'NHWC' if last == known != first else 'NCHW'
        self._check_channels(last if layout == 'NHWC' else first, level,
                             layout)
        return layout

    def _check_channels(self, channels: int, level: int,
                        layout: Optional[str] = None) -> None:
        if not self.in_channels or channels == self.in_channels[level]:
            return
        what = '' if layout is None else f', in the layout {layout}'
        raise ValueError(
            f"FeatJNDNeck: split='{self.split}' emits {channels} channels in "
            f'level {level}{what}, but in_channels={list(self.in_channels)}. '
            'Set in_channels to what it emits' + (
                '.' if layout is None else
                ", or layout='NHWC' or 'NCHW' to where its channels are."))

    def is_estimator(self, module: nn.Module) -> bool:
        """Whether a module is one of the estimators, or a part of one."""
        return any(module is m for m in self.estimators.modules())

    def estimator_of(self, level: int) -> nn.Module:
        """The estimator of a configured level.

        Raises:
            RuntimeError: The neck has none.
        """
        if not self.estimators:
            raise RuntimeError(
                'FeatJNDNeck: an operation needs an estimator, but there is '
                'none. Use the config that trained one, or name an estimator '
                'file.')
        return self.estimators[0 if self.shared else self.levels.index(level)]

    @contextmanager
    def changing(
            self, change: Optional[Callable[[Tensor, int],
                                            Tensor]]) -> Iterator[None]:
        """Give every configured level to a function, as the split emits it.

        What :meth:`run` and the recorders of :mod:`mmfeatjnd.models.splits`
        are made of.

        Args:
            change (Callable, optional): (feature, level) -> feature of the
                same shape and dtype. None: features pass untouched.
        """
        former, self.change = self.change, change
        try:
            with attached(self):
                yield
        finally:
            self.change = former

    @contextmanager
    def run(self,
            operation: Operation,
            images: Optional[Sequence] = None,
            **kwargs) -> Iterator[Run]:
        """Run an operation on all features of a batch.

        Inside, every pass of the host sees changed features; afterwards, and
        after an exception, it sees its own.

        Example::

            neck = neck_at(model, 'neck')
            with neck.run(Perturbation('gaussian', nrmse=0.5), images) as run:
                predictions = model.predict(inputs, data_samples)
            run.measured['nrmse']  # (B,)

        Args:
            operation (Callable): A
                :class:`mmfeatjnd.models.BaseOperation`, or any function
                (feature, level, visit) -> feature of the same shape.
            images (Sequence, optional): The host's data samples, or ids:
                integers or strings. Noise depends on them. Defaults to None:
                the position in the batch.
            **kwargs: Of :class:`Run`.

        Yields:
            Run: With ``measured`` after the pass.

        Raises:
            ConfigError: The host did not pass the split.
        """
        if self.detached:  # its estimators are loaded by nobody else
            self.check(operation)
        run = Run(operation, self, images, **kwargs)
        self.row_images = None  # of another pass
        with self.changing(run):
            yield run
        run.finish()

    def apply_levels(
            self, features: Tuple[Tensor, ...]) -> Tuple[Tensor, ...]:
        """Change all that the split emits.

        Args:
            features (tuple[Tensor]): Every level.

        Returns:
            tuple[Tensor]: The same shapes and dtypes.

        Raises:
            ValueError: There are fewer levels than configured.
        """
        if self.change is None:
            return tuple(features)
        if self.levels and max(self.levels) >= len(features):
            raise ValueError(
                f"FeatJNDNeck: split='{self.split}' emits {len(features)} "
                f'level(s), but {self.configured} are configured.')
        self.look(enumerate(features))
        return tuple(self.apply_level(x, i) for i, x in enumerate(features))

    def look(self, features: Iterable[Tuple[int, Tensor]]) -> None:
        """Show all levels that arrive together to what changes them, if it
        wants to see them before it changes the first.

        Args:
            features (Iterable[tuple]): Their indices, and what the split
                emits.
        """
        look = getattr(self.change, 'look', None)
        if look is not None:
            look(list(features))

    def apply_level(self, feature: Tensor, level: int) -> Tensor:
        """Change one level, if it is configured and somebody changes it.
        Where nothing is known of the split, all are given.

        Args:
            feature (Tensor): What the split emits.
            level (int): Its index among what the split emits.

        Returns:
            Tensor: The same shape and dtype.
        """
        if self.change is None or (self.in_channels is not None
                                   and level not in self.levels):
            return feature
        return self.change(feature, level)

    def forward(
            self, inputs: Union[Tensor,
                                Sequence[Tensor]]) -> Tuple[Tensor, ...]:
        """Change the features at the split, and run the host's neck.

        Args:
            inputs (Tensor | Sequence[Tensor]): The levels of the backbone.

        Returns:
            tuple[Tensor]: The levels of the host's neck, or the inputs'.
        """
        features = _as_levels(inputs)
        if self.split == 'backbone':
            features = self.apply_levels(features)
        elif self.split != 'neck' and self.change is not None:
            self._check_attached()
        if self.neck is not None:
            features = _as_levels(self.neck(features))
        if self.split == 'neck':
            features = self.apply_levels(features)
        return features

    def _check_attached(self) -> None:
        if not self.attached:
            raise RuntimeError(
                f"FeatJNDNeck: split='{self.split}' lies inside the host, "
                'which this neck does not know. Take the neck of a model by '
                'mmfeatjnd.models.find_neck(model).')


def _as_levels(features) -> Tuple[Tensor, ...]:
    return (features, ) if isinstance(features, Tensor) else tuple(features)


def _owner(model: nn.Module, neck: FeatJNDNeck) -> nn.Module:
    """The host: the part of a model whose neck this is."""
    for module in model.modules():
        if getattr(module, 'neck', None) is neck and module is not neck:
            return module
    return model


def find_neck(model: nn.Module) -> FeatJNDNeck:
    """The FeatJND neck in a model, behind DDP, TTA and other wrappers.

    Args:
        model (nn.Module): A host with a FeatJND neck.

    Returns:
        FeatJNDNeck: It knows its host from then on.

    Raises:
        ConfigError: There is none, or more than one.
    """
    model = unwrapped(model)
    necks = [m for m in model.modules() if isinstance(m, FeatJNDNeck)]
    if len(necks) != 1:
        raise ConfigError(
            f'{type(model).__name__} must hold one FeatJNDNeck, but has '
            f"{len(necks) or 'none'}. Wrap the host's neck in the config: "
            "neck=dict(_delete_=True, type='mmfeatjnd.FeatJNDNeck', "
            'neck=_base_.model.neck, estimator=...).')
    necks[0].bind(_owner(model, necks[0]))
    return necks[0]
