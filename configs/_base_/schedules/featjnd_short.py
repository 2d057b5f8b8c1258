# How the estimators of the small hosts in `configs/hosts` and `configs/demo`
# are trained: 150 iterations of up to a second on two CPU cores,
# which is minutes in all.
#
# `train_cfg.max_iters` is the only number to change: the learning rate falls
# until then, and the last iteration is saved and validated. A config takes
# the fields over as with `featjnd_1k.py`.
featjnd_schedule = dict(
    optim_wrapper=dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=4e-3, weight_decay=1e-2),
        clip_grad=dict(max_norm=10.0)),
    param_scheduler=[
        dict(
            type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=0),
    ],
    train_cfg=dict(
        _delete_=True,
        type='IterBasedTrainLoop',
        max_iters=150,
        val_interval=1_000_000),
    default_hooks=dict(
        logger=dict(interval=20),
        checkpoint=dict(by_epoch=False, interval=1000)),
    log_processor=dict(by_epoch=False))
