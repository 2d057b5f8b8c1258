# FeatJND on the ResNet-18 of configs/hosts. The split is the output of the
# second stage group: half of the host follows it.
_base_ = '../hosts/resnet18_1xb128-5e_cifar10.py'
max_iters = 400
train_dataloader = dict(batch_size=64)
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmpretrain.ImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        split='backbone.layer2',
        in_channels=128,
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
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters,
    val_interval=max_iters)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=max_iters),
    logger=dict(interval=50))
log_processor = dict(by_epoch=False)
load_from = 'work_dirs/resnet18_1xb128-5e_cifar10/epoch_5.pth'
