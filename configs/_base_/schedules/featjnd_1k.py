# How the shipped configs train an estimator: 1000 iterations with the host's
# own batches, whatever its own schedule is. With COCO's 16 images that is an
# eighth of an epoch, about 1 % of the training of the host; an iteration takes
# about as long as one of the host's own.
#
# `train_cfg.max_iters` is the only number to change (above the 100 of the
# warm-up): the learning rate falls until then, and the last iteration is
# saved and validated.
#
# MMEngine lets no two files of one `_base_` list set the same field, and the
# host's config has set these. A config takes them over by
#     globals().update(_base_.pop('featjnd_schedule'))
featjnd_schedule = dict(
    # the host is frozen, so it needs none of its own optimizer's settings
    optim_wrapper=dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=4e-3, weight_decay=1e-2),
        clip_grad=dict(max_norm=10.0)),
    # no `end`: that of the training
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
            begin=100),
    ],
    train_cfg=dict(
        _delete_=True,
        type='IterBasedTrainLoop',
        max_iters=1000,
        # beyond the last iteration, which is always validated: the validation
        # measures the clean host, which does not change
        val_interval=1_000_000),
    default_hooks=dict(
        logger=dict(log_metric_by_epoch=False),
        checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=2)),
    log_processor=dict(by_epoch=False))
