# The demo's FeatJND: the host of mask-rcnn_tiny_shapes.py, before its FPN.
_base_ = './mask-rcnn_tiny_shapes.py'
max_iters = 160
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmdet.MaskRCNN',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        estimator=dict(type='mmfeatjnd.ConvEstimator')),
    objective=dict(type='mmfeatjnd.FeatJNDLoss'))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    by_epoch=False,
    begin=0,
    T_max=max_iters,
    eta_min=1e-5)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters,
                 val_interval=max_iters)
val_cfg = None  # tested by the demo itself
val_dataloader = None
val_evaluator = None
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=max_iters))
log_processor = dict(by_epoch=False)
