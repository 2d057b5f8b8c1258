"""What the host libraries have in common, and what an adapter must say."""
from abc import ABC, abstractmethod
from contextlib import contextmanager, nullcontext
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from mmfeatjnd.functional import Distribution
from mmfeatjnd.functional.likelihood import Terms

#: Height and width of an image, and those of the input that it is part of; of
#: an image with a letterbox then those of both.
Content = Tuple[int, ...]


class Answer(NamedTuple):
    """What a host says before it decides.

    Attributes:
        logits (Tensor): (B, K) or (B, K, H, W).
        kind (str): 'categorical': a softmax over K >= 2 classes; 'binary': a
            sigmoid on each of K >= 1 logits.
        threshold (float): Probability above which a 'binary' host says
            yes. Defaults to 0.5.
    """
    logits: Tensor
    kind: str
    threshold: float = 0.5

    def distribution(self) -> Distribution:
        """What is said, as a distribution.

        Raises:
            ValueError: It is a softmax over one class.
        """
        kind = 'categorical' if self.kind == 'categorical' else 'bernoulli'
        if kind == 'categorical' and self.logits.size(1) < 2:
            raise ValueError(
                'the softmax over one class is always 1, whatever its logit, '
                'so nothing is said by logits of shape '
                f'{tuple(self.logits.shape)}')
        return Distribution(kind, self.logits)

    def decisions(self) -> Tensor:
        """The classes, (B,) or (B, H, W); of 'binary' yes (1) or no (0) for
        every logit, in their shape."""
        if self.kind == 'categorical':
            return self.logits.argmax(1)
        return (self.logits.sigmoid() > self.threshold).long()


class Likelihood(NamedTuple):
    """What a host says of some images, as distributions.

    Attributes:
        terms (dict[str, Distribution]): By what they are of: a class, an
            objectness, a box, a pixel of a mask.
        proposals (Any): What they are over: the regions and detections of
            the clean pass, which other passes must keep. None: of every
            place of the output.
    """
    terms: Terms
    proposals: Any = None


class NoLikelihood(TypeError):
    """The host's answer is not known as distributions."""


@contextmanager
def _host_pass(host: nn.Module, training: bool) -> Iterator[None]:
    """One pass of a host whose parts are in eval mode. Some hosts, such as
    DINO, return from their forward functions what the loss needs only ``if
    self.training``."""
    former, host.training = host.training, training
    try:
        yield
    finally:
        host.training = former


def _own(host: nn.Module, method: str):
    """A method of the host's own class, also where FeatJND stands on top."""
    for cls in type(host).__mro__:
        if vars(cls).get('extends_host'):
            return getattr(super(cls, host), method)
    # of the class: an instance's `forward` may be somebody's patch
    return getattr(type(host), method).__get__(host)


def run_host(host: nn.Module,
             method: str,
             *args,
             training: bool = False,
             **kwargs) -> Any:
    """Run ``forward``, ``predict``, ``loss`` or another method of a host, not
    FeatJND's of that name.

    Inside :func:`sharing_prefix` the part before the split runs in the first
    of such passes only.

    Args:
        host (nn.Module): A model of a host library, with FeatJND or plain.
        method (str): Name of the method.
        *args: Its arguments.
        training (bool): Whether the host shall take itself for in training;
            its parts stay as they are. Defaults to False.
        **kwargs: Its arguments.

    Returns:
        Any: What it returns.
    """
    with one_pass(host, training):
        return _own(host, method)(*args, **kwargs)


@contextmanager
def one_pass(host: nn.Module, training: bool = False) -> Iterator[None]:
    """Inside, parts of a host are called that make one pass together; see
    :func:`run_host`.

    Args:
        host (nn.Module): The host.
        training (bool): See :func:`run_host`. Defaults to False.
    """
    prefix = vars(host).get('_shared_prefix')
    share = prefix.one_pass() if prefix is not None else nullcontext()
    with _host_pass(host, training), share:
        yield


@contextmanager
def sharing_prefix(host: nn.Module, prefix) -> Iterator[None]:
    """Inside, all passes of :func:`run_host` are over one input.

    Args:
        host (nn.Module): The host.
        prefix (PrefixReplay): Records the part before the split in the first
            pass and replays it in the others.
    """
    vars(host)['_shared_prefix'] = prefix
    try:
        yield
    finally:
        del vars(host)['_shared_prefix']


@contextmanager
def frozen(host: nn.Module) -> Iterator[None]:
    """Inside, the host's parameters need no gradient, whoever trains them.

    Args:
        host (nn.Module): The host.
    """
    wanted = [p for p in host.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in wanted:
            p.requires_grad_(True)


def total_loss(losses: dict) -> Tensor:
    """Sum of all entries with 'loss' in their key, as MMEngine sums them."""
    terms: List[Tensor] = []
    for key, value in losses.items():
        if 'loss' in key:
            values = value if isinstance(value, (list, tuple)) else [value]
            terms.extend(v.mean() for v in values)
    return sum(terms)


class HostAdapter(ABC):
    """What a host library does in its own way."""

    def loss(self,
             host: nn.Module,
             inputs: Tensor,
             targets: list,
             seed: int = 0) -> Tensor:
        """The host's own loss, a scalar.

        Heads that sample proposals or queries draw from PyTorch's global
        generator. With the same seed they draw alike, so that two passes
        differ by their features only; the global state is put back.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            targets (list): Data samples with what is to be predicted.
            seed (int): Seed of the draws. Defaults to 0.
        """
        devices = [inputs.device] if inputs.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.random.manual_seed(seed)
            return total_loss(
                run_host(host, 'loss', inputs, targets, training=True))

    def answer(self, host: nn.Module, inputs: Tensor,
               data_samples: Optional[list]) -> Answer:
        """The host's logits, and how it decides by them.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.

        Raises:
            TypeError: The host has no such logits.
        """
        raise TypeError(
            f'{type(host).__name__} has no single logit tensor, so it is not '
            'known what it decides. With FeatJND, discrepancy=dict(type='
            "'mmfeatjnd.Annotation') works with every loss.")

    def likelihood(self,
                   host: nn.Module,
                   inputs: Tensor,
                   data_samples: Optional[list],
                   proposals: Any = None) -> Likelihood:
        """What the host says, as distributions over fixed proposals.

        A pass without ``proposals`` makes them; a pass over changed features
        is compared with it over the same ones.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
            proposals (Any): Those of the clean pass. Defaults to None.

        Raises:
            NoLikelihood: Nobody has written down what this host's outputs
                mean.
        """
        try:
            answer = self.answer(host, inputs, data_samples)
        except TypeError as error:
            raise NoLikelihood(str(error)) from error
        return Likelihood(dict(cls=answer.distribution()))

    def check_likelihood(self, host: nn.Module) -> None:
        """Raise where the classes of a host say that :meth:`likelihood` knows
        nothing of it.

        Args:
            host (nn.Module): The host, with FeatJND or plain.

        Raises:
            NoLikelihood: So it is.
        """

    def predict(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list]) -> list:
        """The host's predictions, also on images of a training pipeline.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples; they are
                not changed.

        Returns:
            list: Data samples, in the coordinates of the input.
        """
        samples = data_samples and [s.clone() for s in data_samples]
        return run_host(host, 'predict', inputs, samples)

    @abstractmethod
    def own_targets(self, host: nn.Module, inputs: Tensor,
                    data_samples: Optional[list], score_thr: float) -> list:
        """The host's own predictions as the truth of its loss.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
            score_thr (float): Detections below are no objects.

        Returns:
            list: New data samples; the user's are not changed.
        """

    def boxes(self, host: nn.Module, inputs: Tensor,
              data_samples: Optional[list]) -> List[Tensor]:
        """Where a host finds objects.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.

        Returns:
            list[Tensor]: (N, 4) of each image: left, top, right and bottom,
            as shares of the input.

        Raises:
            TypeError: The host finds no boxes.
        """
        raise TypeError(f'{type(host).__name__} finds no boxes, so there is '
                        'nothing outside of them. Leave that control out.')

    def clean_loss(self, host: nn.Module, inputs: Tensor,
                   data_samples: Optional[list]) -> Tensor:
        """The host's loss against its own predictions, a scalar, by the same
        passes that a prediction takes.

        Args:
            host (nn.Module): The host, with FeatJND or plain.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
        """
        with torch.no_grad():
            targets = self.own_targets(host, inputs, data_samples, 0.3)
        return self.loss(host, inputs, targets)

    def content(self, host: nn.Module, inputs: Tensor,
                data_samples: Optional[list],
                training: bool) -> Optional[List[Content]]:
        """Where the images are in an input that is padded.

        Args:
            host (nn.Module): The host.
            inputs (Tensor): (B, 3, H, W), as the host takes them.
            data_samples (list, optional): The host's data samples.
            training (bool): After augmentation, where the size on disk says
                nothing.

        Returns:
            list[tuple], optional: (height, width, input height, input width)
            of each image, which lies at the top left, and (height, width) of
            its letterbox, if it has one: what lies beyond depends on the
            batch. None where all fill the input or nothing is known.
        """
        if not data_samples or not isinstance(inputs, Tensor):
            return None
        height, width = inputs.shape[-2:]
        whole = height, width
        content = []
        for sample in data_samples:
            size, own = _extents(sample, whole, training)
            content.append((*size, *whole, *(own if own != size else ())))
        if all(c[:2] == whole for c in content):
            return None
        return content


def _extents(sample: Any, whole: Tuple[int, int], training: bool) -> tuple:
    """Height and width of an image within an input, without padding and with
    its letterbox."""
    shape = sample.get('img_shape', None)
    if shape is None or sample.get('border', None) is not None:
        return whole, whole  # CenterNet's test pipeline pads on all sides
    size = own = tuple(max(min(n, m), 1) for n, m in zip(shape[:2], whole))
    scale, original = (
        sample.get(k, None) for k in ('scale_factor', 'ori_shape'))
    if not training and scale is not None and original is not None:
        # a letterbox counts as part of `img_shape`
        resized = (int(n * s + 0.5) for n, s in zip(original, scale[::-1]))
        size = tuple(max(min(n, m), 1) for n, m in zip(own, resized))
    return size, own
