"""What an estimator learns by counting while it is trained."""
from typing import List, Sequence, Tuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmfeatjnd.functional import channel_dim, resize_map, to_grid

#: Least weight of a batch: a window of about 100 of them.
_LEAST_WEIGHT = 0.01


def batch_weight(updates: Tensor) -> Tensor:
    """Weight of the newest of so many batches: the plain average first, then
    a window of about 100."""
    return (1 / updates.clamp_min(1)).clamp_min(_LEAST_WEIGHT)


class ChannelStatistics(nn.Module):
    """Mean and mean square of every channel, and the range of all.

    Args:
        channels (int): Number of channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(channels))
        self.register_buffer('mean_square', torch.ones(channels))
        # none yet
        self.register_buffer('low', torch.zeros(()))
        self.register_buffer('high', torch.zeros(()))
        self.register_buffer('updates', torch.zeros(()))

    @torch.no_grad()
    def follow(self, parts: Sequence[Tensor]) -> None:
        """Count one batch; every process must call it equally often.

        Args:
            parts (Sequence[Tensor]): (B, C, H, W), (B, N, C) or (B, C), one
                for each size of images.
        """
        sums, ends = self._count(parts)
        all_reduce(sums)  # every process keeps the same statistics
        all_reduce(ends, 'max')
        self.updates += 1
        found = (sums[:-1] / sums[-1]).view(2, -1)
        # no element at all (no proposals), or an overflow of half precision
        # in the host: one such batch must not stay in the statistics
        sound = found.isfinite().all(0)
        weight = batch_weight(self.updates)
        for own, new in zip((self.mean, self.mean_square), found):
            own.lerp_(torch.where(sound, new, own), weight)
        first, sound = self.updates == 1, ends.isfinite().all()
        for own, new, widest in ((self.high, ends[0], torch.maximum),
                                 (self.low, -ends[1], torch.minimum)):
            new = torch.where(first, new, widest(own, new))
            own.copy_(torch.where(sound, new, own))

    def _count(self, parts: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
        channels = len(self.mean)
        sums = self.mean.new_zeros(2 * channels + 1)
        ends = self.mean.new_full((2, ), -float('inf'))
        for part in parts:
            part = part.float()
            channel = channel_dim(part)
            dims = [d for d in range(part.dim()) if d != channel]
            sums[:channels] += part.sum(dims)
            sums[channels:-1] += part.square().sum(dims)
            sums[-1] += part.numel() // part.size(channel)
            if part.numel():
                low, high = torch.aminmax(part)
                ends = torch.maximum(ends, torch.stack([high, -low]))
        return sums, ends

    @property
    def rms(self) -> Tensor:
        """Tensor: (C,), RMS of each channel; 0 for one that never fired."""
        return self.mean_square.sqrt()

    @property
    def std(self) -> Tensor:
        """Tensor: (C,), standard deviation of each channel; 0 for one that
        never changed."""
        variance = self.mean_square - self.mean.square()
        # what rounding leaves of a constant
        some = variance > 1e-6 * self.mean_square
        return torch.where(some, variance, 0.0).sqrt()


class SensitivityStatistics(nn.Module):
    """What is known of log w, the log sensitivity of the tokens of a level,
    without a look at the image: what an estimator must beat; and what its
    predictions lack on average.

    Args:
        grid (Sequence[int]): Size that maps are kept in: (h, w), or (n,) of
            token sequences.
        others (int): How many maps of training pictures are kept. Defaults
            to 16.
    """

    def __init__(self, grid: Sequence[int], others: int = 16) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.register_buffer('gain', torch.zeros(()))
        self.register_buffer('map', torch.zeros(*grid))
        self.register_buffer('others', torch.zeros(others, *grid))
        self.register_buffer('excess', torch.ones(()))
        self.register_buffer('share', torch.ones(()))
        self.register_buffer('updates', torch.zeros(()))

    @torch.no_grad()
    def follow(self, found: List[Tuple[Tensor, Tensor, Tensor]],
               share: float) -> None:
        """Count one batch; every process must call it equally often.

        Args:
            found (list[tuple]): For each size of images log w and what the
                estimator predicted of it, (B, 1, H, W), (B, N, 1) or (B, 1),
                and which image of the batch each is, (B,), int64; it may be
                empty.
            share (float): Share of the level among the tokens of an image.
        """
        size = self.map.numel()
        sums = self.map.new_zeros(size + 4)
        for wanted, predicted, _ in found:
            maps = to_grid(wanted, self.grid)
            sums[:size] += maps.sum(0).flatten()
            sums[size:] += torch.stack([
                sums.new_tensor(float(len(wanted))),
                wanted.mean() * len(wanted),
                (wanted - predicted).exp().mean() * len(wanted),
                sums.new_tensor(share * len(wanted))
            ])
        if found:
            # in the order of the images, which levels may sort by size
            # differently: a number means the same picture in all of them
            order = torch.cat([i for _, _, i in found]).argsort(stable=True)
            newest = torch.cat([to_grid(p, self.grid) for _, p, _ in found])
            # the newest maps first; of every process its own
            self.others.copy_(torch.cat([newest[order], self.others])[
                :len(self.others)])
        all_reduce(sums)
        self.updates += 1
        weight = batch_weight(self.updates)
        number = sums[size]
        new = sums / number
        sound = new.isfinite().all()
        for own, value in ((self.map, new[:size].view(self.grid)),
                           (self.gain, new[size + 1]),
                           (self.excess, new[size + 2]),
                           (self.share, new[size + 3])):
            own.lerp_(torch.where(sound, value, own), weight)

    def static(self, like: Tensor) -> Tensor:
        """The mean map of the training, in the size of a feature.

        Args:
            like (Tensor): (B, C, H, W), (B, N, C) or (B, C).

        Returns:
            Tensor: (B, 1, H, W), (B, N, 1) or (B, 1), nats.
        """
        return resize_map(self.map.expand(len(like), *self.grid), like)

    def other(self, keys: Tensor, like: Tensor) -> Tensor:
        """Maps that the estimator predicted of training pictures.

        Args:
            keys (Tensor): (B,), int64: keys of the images; one image gets the
                same picture in all levels.
            like (Tensor): See :meth:`static`.

        Returns:
            Tensor: See :meth:`static`.
        """
        return resize_map(self.others[keys % len(self.others)], like)
