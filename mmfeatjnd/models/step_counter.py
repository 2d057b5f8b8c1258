"""Which draw of a training this is."""
from typing import Optional

from mmengine.logging import MessageHub

from mmfeatjnd.functional import step_seed


class StepCounter:
    """Seeds of what is drawn in training: others in every step, and the same
    ones after resuming.

    The step is the Runner's. Where there is no Runner, calls are counted.
    """

    def __init__(self) -> None:
        self._step: Optional[int] = None
        self._call = -1

    def next_seed(self, seed: int = 0) -> int:
        """The seed of the next draw.

        Args:
            seed (int): Another one gives independent draws. Defaults to 0.

        Returns:
            int: See :func:`mmfeatjnd.functional.step_seed`.
        """
        step = MessageHub.get_current_instance().get_info('iter')
        self._call = self._call + 1 if step == self._step else 0
        self._step = step
        return step_seed(step, self._call, seed)
