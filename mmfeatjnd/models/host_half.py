"""Files of the weights that one side of a split needs."""
from pathlib import Path
from typing import Dict, NamedTuple, Tuple, Union

from torch import Tensor, nn

from .estimator_file import WHOLE_HASH, host_hash, host_state
from .hosts import OWN_KEYS, CheckpointError, host_key
from .tensor_file import FileKind

_MAKE = 'Make one with tools/model_converters/split_host.py.'
_KIND = FileKind('mmfeatjnd.half', 1, 'half of a host', _MAKE, _MAKE)
SUFFIX = '.safetensors'
_CANVAS = 'featjnd_canvas.'


class HostHalf(NamedTuple):
    """What one side of a split needs of a host.

    Attributes:
        side (str): 'sender' or 'receiver'.
        split (str): The split point.
        host_hash (str): Of all of the host's weights.
        idle (tuple[str]): Outermost modules that this side does not run.
        state (dict[str, Tensor]): The weights of the others, by the names of
            the plain host.
        canvas (dict[int, Tensor]): Of the receiver what it cannot compute,
            see :func:`mmfeatjnd.models.canvas.padding_canvas`.
    """
    side: str
    split: str
    host_hash: str
    idle: Tuple[str, ...]
    state: Dict[str, Tensor]
    canvas: Dict[int, Tensor] = {}

    def load_into(self, model: nn.Module) -> None:
        """Load the weights that there are.

        Args:
            model (nn.Module): The host as its config builds it.

        Raises:
            CheckpointError: It is another host.
        """
        own = {host_key(k): (k, v.shape)
               for k, v in model.state_dict().items()
               if not k.startswith(OWN_KEYS)}
        for key, (name, shape) in own.items():
            if key in self.state:
                if self.state[key].shape != shape:
                    raise CheckpointError(
                        f"this half has '{key}' in shape "
                        f'{tuple(self.state[key].shape)}, but the config '
                        f'builds {tuple(shape)}: it is of another host')
            elif not self._is_idle(key) and not key.endswith(
                    'num_batches_tracked'):
                raise CheckpointError(
                    f"this half lacks '{key}' of the {self.side}: it is of "
                    'another host')
        # not by load_state_dict, which would look for the rest
        state = model.state_dict()
        for key, value in self.state.items():
            if key in own:
                state[own[key][0]].copy_(value)
        setattr(model, WHOLE_HASH, self.host_hash)

    def drop_idle(self, model: nn.Module) -> None:
        """Leave nothing but shapes of the modules that do not run here."""
        for name, module in model.named_modules():
            if host_key(name) in self.idle:
                module.to('meta')

    def _is_idle(self, key: str) -> bool:
        return any(key.startswith(f'{name}.') for name in self.idle)


def host_half(model: nn.Module, side: str, split: str,
              idle: Tuple[str, ...]) -> HostHalf:
    """The half of a host.

    Args:
        model (nn.Module): The host, its weights loaded.
        side (str): 'sender' or 'receiver'.
        split (str): The split point.
        idle (tuple[str]): What it does not run, see
            :func:`mmfeatjnd.models.splits.idle_modules`.
    """
    half = HostHalf(side, split, host_hash(model),
                    tuple(map(host_key, idle)), {})
    state = {k: v.detach().cpu().contiguous().clone()
             for k, v in host_state(model).items() if not half._is_idle(k)}
    return half._replace(state=state)


def save_half(half: HostHalf, path: Union[str, Path]) -> None:
    """Write a half of a host, atomically.

    Args:
        half (HostHalf): The half.
        path (str | Path): The file, named ``*.safetensors``.

    Raises:
        CheckpointError: A weight is NaN or infinite.
        WriteError: The file cannot be written.
    """
    about = dict(half._asdict(), state=None, canvas=None)
    canvas = {f'{_CANVAS}{i}': x for i, x in half.canvas.items()}
    _KIND.write(path, dict(half.state, **canvas), about, 'the host')


def load_half(path: Union[str, Path]) -> HostHalf:
    """Read a half of a host.

    Args:
        path (str | Path): A file of :func:`save_half`.

    Raises:
        CheckpointError: The file holds none, or has another version.
    """
    about, tensors = _KIND.read(path)
    canvas = {int(k.removeprefix(_CANVAS)): tensors.pop(k)
              for k in list(tensors) if k.startswith(_CANVAS)}
    return HostHalf(about['side'], about['split'], about['host_hash'],
                    tuple(about['idle']), tensors, canvas)
