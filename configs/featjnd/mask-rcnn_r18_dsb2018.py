# FeatJND on the Mask R-CNN R-18 of configs/hosts, before its FPN.
_base_ = '../hosts/mask-rcnn_r18_1xb4-8e_dsb2018.py'
max_iters = 150
train_dataloader = dict(batch_size=2)
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
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=max_iters)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=max_iters),
    logger=dict(interval=20))
log_processor = dict(by_epoch=False)
load_from = 'work_dirs/mask-rcnn_r18_1xb4-8e_dsb2018/epoch_8.pth'
