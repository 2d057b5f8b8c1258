"""What every estimator shares: its units, its mode, and the noise."""
import math
from abc import abstractmethod
from typing import Optional, Sequence, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfeatjnd.functional import (
    channel_dim,
    check_layout,
    over_channels,
    tolerated_log_std,
    uniform_noise,
)
from mmfeatjnd.functional.layout import mean_over_tokens
from .statistics import ChannelStatistics, SensitivityStatistics

MODES = ('sensitivity', 'signed', 'envelope')


class BaseEstimator(BaseModule):
    r"""Predict how much a feature may change.

    With the mean :math:`\mu_c`, the standard deviation :math:`\sigma_c` and
    the RMS :math:`r_c` of each channel (running statistics of the training)
    and the network :math:`g_\theta`:

    - ``sensitivity``: :math:`\log w_t = b + g_\theta((f - \mu_c) /
      \sigma_c)`, one number a token: how much noise on this token costs the
      task, see :mod:`mmfeatjnd.functional.sensitivity`. The network's output
      is a level of the whole image and a map without a mean, apart from each
      other. The JND is the bound of uniform noise, :math:`\sqrt{3}
      \sigma_c s_t`, whose expected cost of the whole image is
      ``tolerance`` nats. Ours.
    - ``signed``: :math:`\delta = r_c\, g_\theta(f / r_c)`, the map of the
      FeatJND paper: one deterministic change that the task does not notice;
    - ``envelope``: :math:`\sigma = r_c \exp(b \tanh(g_\theta(f / r_c) /
      b))`, the bound of uniform noise, an element its own; trained by the
      task's discrepancy. Ours.

    Working in units of the channels makes one learning rate fit every split.

    Args:
        in_channels (int): Channels C of the feature.
        mode (str): 'sensitivity', 'signed' or 'envelope'. Defaults to
            'sensitivity'.
        tolerance (float): Of the sensitivity mode, what the JND of a whole
            image costs, in nats. Defaults to 0.02.
        log_range (float): In envelope mode the bound b of the log envelope,
            in nats; in sensitivity mode that of :math:`\log s_t` about its
            mean. Defaults to 4.0, that is 0.018 to 55 times.
        init_cfg (dict, optional): As in MMEngine. Defaults to None.
    """

    #: Tensor ranks that the estimator takes, and the advice when it does not.
    ndims = (2, 3, 4)
    advice = ''

    #: Of the static map.
    grid: Tuple[int, ...] = (32, 32)

    def __init__(self,
                 in_channels: int,
                 mode: str = 'sensitivity',
                 tolerance: float = 0.02,
                 log_range: float = 4.0,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if mode not in MODES:
            raise ValueError(f'{type(self).__name__}: mode must be one of '
                             f'{MODES}, but got {mode!r}')
        if not 0 < tolerance < float('inf'):
            raise ValueError(f'{type(self).__name__}: tolerance must be a '
                             f'number of nats above 0, but got {tolerance}')
        self.in_channels = in_channels
        self.mode = mode
        self.tolerance = tolerance
        self.log_range = log_range
        self.channels = ChannelStatistics(in_channels)
        if mode == 'sensitivity':
            self.known = SensitivityStatistics(self.grid)
        self.register_buffer('initial', torch.zeros((), dtype=torch.int64))
        self._begun = False

    @property
    def out_channels(self) -> int:
        """int: What :meth:`body` emits: one number a token, or an element."""
        return 1 if self.mode == 'sensitivity' else self.in_channels

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """Map the normalised feature to an unbounded map of its shape with
        :attr:`out_channels`."""

    def init_level(self, hidden_channels: int) -> None:
        """Make what predicts the level of the whole image; called by
        subclasses that use :meth:`with_level`."""
        if self.mode == 'sensitivity':
            self.level = nn.Linear(hidden_channels, 1)

    def with_level(self, out: Tensor, hidden: Tensor) -> Tensor:
        """In sensitivity mode a map without a mean and the level of its
        image, which :attr:`level` reads from the mean of the hidden tokens;
        else the map as it is."""
        if self.mode != 'sensitivity':
            return out
        mean = mean_over_tokens(hidden).movedim(channel_dim(hidden), -1)
        level = self.level(mean).movedim(-1, channel_dim(out))
        return out - mean_over_tokens(out) + level

    def channel_unit(self, like: Tensor) -> Tensor:
        """The unit of each channel, its standard deviation in sensitivity
        mode and else its RMS; float32, broadcastable to ``like``. 0 in
        channels that never changed, or never fired."""
        sensitive = self.mode == 'sensitivity'
        return over_channels(
            self.channels.std if sensitive else self.channels.rms, like)

    @torch.no_grad()
    def fingerprint(self) -> Tensor:
        """A number that any change of a parameter changes, int64: the sum of
        their bits, which is the same on every device."""
        return sum(
            p.detach().float().contiguous().view(torch.int32).sum(
                dtype=torch.int64) for p in self.parameters())

    @property
    def trained(self) -> bool:
        """bool: Whether the parameters differ from those that training began
        with. Waits for the device."""
        return bool((self.initial != 0) & (self.initial != self.fingerprint()))

    @torch.no_grad()
    def follow(self, parts: Sequence[Tensor]) -> None:
        """Follow the statistics of the channels over a training. Nothing
        happens in eval mode.

        Every process must call it equally often, before :meth:`forward`.

        Args:
            parts (Sequence[Tensor]): What the forwards of one batch will
                get: one feature for each size of images.

        Raises:
            ValueError: See :meth:`forward`.
        """
        if not self.training:
            return
        for part in parts:
            self._check(part)
        if not self._begun:  # a resumed training began elsewhere
            self._begun = True
            self.initial.copy_(
                torch.where(self.channels.updates == 0, self.fingerprint(),
                            self.initial))
        self.channels.follow(parts)

    def _check(self, feature: Tensor) -> None:
        check_layout(feature, type(self).__name__)
        if feature.dim() not in self.ndims:
            raise ValueError(f'{type(self).__name__} got a feature of shape '
                             f'{tuple(feature.shape)}. {self.advice}')
        channels = feature.size(channel_dim(feature))
        if channels != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} was built for {self.in_channels} '
                f'channels, but got {channels} (shape '
                f'{tuple(feature.shape)}). Set `in_channels` of FeatJNDNeck '
                'to what the split emits.')

    def _normalised(self, feature: Tensor, center: bool) -> Tensor:
        self._check(feature)
        unit = self.channel_unit(feature)
        if center:
            feature = feature - over_channels(self.channels.mean, feature)
        # A channel that never fired in training has the unit 0: it gets no
        # distortion, and should it fire now, it must not drown the others.
        alive = unit > 0
        return feature / torch.where(alive, unit, 1.0) * alive

    def log_sensitivity(self, feature: Tensor) -> Tensor:
        """log w of every token, in sensitivity mode.

        Args:
            feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

        Returns:
            Tensor: (B, 1, H, W), (B, N, 1) or (B, 1), float32, nats.

        Raises:
            ValueError: Another layout or number of channels.
        """
        return self.known.gain + self.body(
            self._normalised(feature, True)).float()

    def forward(self, feature: Tensor) -> Tensor:
        """Predict the map.

        Args:
            feature (Tensor): (B, C, H, W), (B, N, C) or (B, C), images
                without padding.

        Returns:
            Tensor: The same shape, float32: the signed map, or the bound of
            the noise (>= 0, and 0 only in channels that never fired).

        Raises:
            ValueError: Another layout or number of channels.
        """
        if self.mode == 'sensitivity':
            # what the predictions lack on average
            log_w = self.log_sensitivity(feature) + self.known.excess.log()
            return self.envelope_of(log_w, feature)
        unit = self.channel_unit(feature)
        out = self.body(self._normalised(feature, False)).float()
        if self.mode == 'signed':
            return unit * out
        return unit * (self.log_range *
                       (out / self.log_range).tanh()).exp()

    def envelope_of(self, log_w: Tensor, feature: Tensor) -> Tensor:
        """The bound of uniform noise that costs ``tolerance`` nats.

        Args:
            log_w (Tensor): log w of the tokens, nats, of whatever source.
            feature (Tensor): The feature, images without padding.

        Returns:
            Tensor: The shape of ``feature``, float32.
        """
        tokens = feature[0].numel() // self.in_channels if len(feature) else 1
        log_s = tolerated_log_std(
            log_w, self.tolerance, tokens / self.known.share)
        return math.sqrt(3) * self.channel_unit(feature) * self.bounded(
            log_s).exp()

    def bounded(self, log_s: Tensor) -> Tensor:
        """log of a token's noise within ``log_range`` of its mean over an
        image: one token must not get all that there is.

        Args:
            log_s (Tensor): (B, 1, H, W), (B, N, 1) or (B, 1), nats.
        """
        middle = mean_over_tokens(log_s)
        return middle + (log_s - middle).clamp(-self.log_range,
                                               self.log_range)

    def distortion(self,
                   jnd_map: Tensor,
                   keys: Optional[Tensor] = None,
                   stream: int = 0) -> Tensor:
        """A distortion that the map allows.

        Args:
            jnd_map (Tensor): What :meth:`forward` returned, (B, ...).
            keys (Tensor, optional): (B,), int64: keys of the noise. Not
                needed in signed mode. Defaults to None.
            stream (int): Stream of the noise. Defaults to 0.

        Returns:
            Tensor: ``jnd_map`` itself (signed), or noise inside it.
        """
        if self.mode == 'signed':
            return jnd_map
        return jnd_map * uniform_noise(keys, jnd_map.shape[1:], stream)

    def extra_repr(self) -> str:
        return f'in_channels={self.in_channels}, mode={self.mode!r}'
