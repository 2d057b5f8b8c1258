"""A progress bar instead of log lines."""
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from mmfeatjnd.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show training as one progress bar with its remaining time."""

    priority = 'VERY_LOW'

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Start the bar; a resumed run starts where it stands."""
        self._bar = ProgressBar(runner.max_iters - runner.iter)

    @master_only
    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """One iteration is done."""
        self._bar.update()

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Leave the line."""
        self._bar.file.write('\n')
