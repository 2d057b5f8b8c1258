# How the shipped configs train an estimator: 5000 iterations, whatever the
# host's own schedule is. MMEngine lets no two files of one `_base_` list set
# the same field, and the stock config has set these, so a config takes them
# over by name: `optim_wrapper = _base_.featjnd.optim_wrapper`.
featjnd = dict(
    objective=dict(type='mmfeatjnd.FeatJNDLoss'),
    # the host is frozen, so it needs none of its own optimizer's settings
    optim_wrapper=dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0),
        clip_grad=dict(max_norm=10.0)),
    param_scheduler=[
        dict(
            type='LinearLR',
            start_factor=0.01,
            by_epoch=False,
            begin=0,
            end=100),
        dict(
            type='CosineAnnealingLR',
            eta_min=1e-5,
            by_epoch=False,
            begin=100,
            end=5000),
    ],
    # the validation measures the clean host, which does not change
    train_cfg=dict(
        _delete_=True,
        type='IterBasedTrainLoop',
        max_iters=5000,
        val_interval=5000),
    default_hooks=dict(
        logger=dict(log_metric_by_epoch=False),
        checkpoint=dict(by_epoch=False, interval=1000, max_keep_ckpts=2)),
    log_processor=dict(by_epoch=False))
