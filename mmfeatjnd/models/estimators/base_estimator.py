"""What every estimator shares: scale, mode, and the noise of the envelope."""
from abc import abstractmethod
from typing import Optional, Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule
from torch import Tensor

from mmfeatjnd.functional import channel_dim, check_layout, uniform_noise

MODES = ('signed', 'envelope')


class BaseEstimator(BaseModule):
    r"""Predict how much every element of a feature may change.

    With the RMS of each channel :math:`r_c` (a running statistic of the
    training) and the network :math:`g_\theta` on the normalised feature:

    - ``signed``: :math:`\delta = r_c\, g_\theta(f / r_c)`, the map of the
      paper: one deterministic change that the task does not notice;
    - ``envelope``: :math:`\sigma = r_c \exp(b \tanh(g_\theta(f / r_c) / b))`,
      a non-negative map; the distortion is uniform noise in
      :math:`(-\sigma, \sigma)`. Ours: the paper's constraint is over a
      distribution of distortions.

    Working in units of :math:`r_c` makes one learning rate fit every split.

    Args:
        in_channels (int): Channels C of the feature.
        mode (str): 'signed' or 'envelope'. Defaults to 'signed'.
        log_range (float): The bound b of the log envelope, in nats.
            Defaults to 4.0, that is 0.018 to 55 times the channel's RMS.
        init_cfg (dict, optional): As in MMEngine. Defaults to None.
    """

    #: Tensor ranks that the estimator takes, and the advice when it does not.
    ndims = (2, 3, 4)
    advice = ''

    def __init__(self,
                 in_channels: int,
                 mode: str = 'signed',
                 log_range: float = 4.0,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        if mode not in MODES:
            raise ValueError(f'{type(self).__name__}: mode must be one of '
                             f'{MODES}, but got {mode!r}')
        self.in_channels = in_channels
        self.mode = mode
        self.log_range = log_range
        self.register_buffer('mean_square', torch.ones(in_channels))
        self.register_buffer('num_updates', torch.zeros(()))
        self.register_buffer('initial', torch.zeros((), dtype=torch.int64))
        self._begun = False

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """Map the normalised feature to an unbounded map of its shape."""

    def channel_rms(self, like: Tensor) -> Tensor:
        """RMS of each channel, float32, broadcastable to ``like``."""
        shape = [1] * like.dim()
        shape[channel_dim(like)] = -1
        return self.mean_square.sqrt().view(shape)

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
        """Follow the RMS of the channels over a training. Nothing happens in
        eval mode.

        Every process must call it equally often, before :meth:`forward`.

        Args:
            parts (Sequence[Tensor]): What the forwards of one batch will
                get: one feature for each size of images.

        Raises:
            ValueError: See :meth:`forward`.
        """
        if not self.training:
            return
        sums = self.mean_square.new_zeros(self.in_channels + 1)
        for part in parts:
            self._check(part)
            channel = channel_dim(part)
            dims = [d for d in range(part.dim()) if d != channel]
            sums[:-1] += part.float().square().sum(dims)
            sums[-1] += part.numel() // part.size(channel)
        all_reduce(sums)  # every process keeps the same statistic
        if not self._begun:  # a resumed training began elsewhere
            self._begun = True
            self.initial.copy_(
                torch.where(self.num_updates == 0, self.fingerprint(),
                            self.initial))
        self.num_updates += 1
        # the plain average first, then a window of about 100 batches
        momentum = (1 / self.num_updates).clamp_min(0.01)
        square = sums[:-1] / sums[-1]
        # no element at all (no proposals), or an overflow of half precision
        # in the host: one such batch must not stay in the statistic
        square = torch.where(square.isfinite(), square, self.mean_square)
        self.mean_square.lerp_(square, momentum)

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

    def forward(self, feature: Tensor) -> Tensor:
        """Predict the map.

        Args:
            feature (Tensor): (B, C, H, W), (B, N, C) or (B, C).

        Returns:
            Tensor: The same shape, float32: the signed map, or the envelope
            (>= 0, and 0 only in channels that never fired).

        Raises:
            ValueError: Another layout or number of channels.
        """
        self._check(feature)
        rms = self.channel_rms(feature)
        # A channel that never fired in training has RMS 0: it gets no
        # distortion, and should it fire now, it must not drown the others.
        alive = rms > 0
        out = self.body(feature / torch.where(alive, rms, 1.0) * alive).float()
        if self.mode == 'signed':
            return rms * out
        return rms * (self.log_range *
                      (out / self.log_range).tanh()).exp()

    def distortion(self,
                   jnd_map: Tensor,
                   keys: Optional[Tensor] = None,
                   stream: int = 0) -> Tensor:
        """A distortion that the map allows.

        Args:
            jnd_map (Tensor): What :meth:`forward` returned, (B, ...).
            keys (Tensor, optional): (B,), int64: keys of the noise. Needed
                in envelope mode only. Defaults to None.
            stream (int): Stream of the noise. Defaults to 0.

        Returns:
            Tensor: ``jnd_map`` itself (signed), or noise inside it.
        """
        if self.mode == 'signed':
            return jnd_map
        return jnd_map * uniform_noise(keys, jnd_map.shape[1:], stream)

    def extra_repr(self) -> str:
        return f'in_channels={self.in_channels}, mode={self.mode!r}'
