"""What of a host's own hooks does not go with the training of an estimator."""
import logging

from mmengine.config import Config

from mmfeatjnd.utils import log, type_name

#: Hooks of the host libraries, and what they would do.
MISFITS = dict(
    EMAHook='it would save an average of the estimator, which after a short '
    'training is little more than its beginning',
    SyncNormHook='it would load the statistics of batch norms that do not '
    'change',
    PreciseBNHook='it would look for batch norms that train',
    MeanTeacherHook='there is no teacher',
    **dict.fromkeys(
        ('YOLOXModeSwitchHook', 'PipelineSwitchHook', 'SwitchRecipeHook',
         'SwitchTrainAugHook'),
        'it would change augmentation or losses at an epoch of a training '
        'that is not run'))


def drop_misfits(cfg: Config) -> None:
    """Switch off the hooks of a host that do not go with a frozen one, and
    say so.

    Args:
        cfg (Config): Config of a FeatJND model; its ``custom_hooks`` are
            edited in place. The config of another model is left alone.

    Example:
        >>> cfg.custom_hooks = [dict(type='EMAHook'), dict(type='SetEpoch')]
        >>> drop_misfits(cfg)
        >>> cfg.custom_hooks
        [{'type': 'SetEpoch'}]
    """
    if type_name(cfg.model) not in ('FeatJND', 'build_featjnd'):
        return
    hooks = cfg.get('custom_hooks') or []
    for hook in hooks:
        name = type_name(hook) or ''
        if name in MISFITS:
            log(f'{name} of the host is switched off: {MISFITS[name]}',
                logging.WARNING)
    cfg.custom_hooks = [h for h in hooks if type_name(h) not in MISFITS]
