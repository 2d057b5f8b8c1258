# A DenseNet of growth rate 12 on small images, for two CPU cores: its map is
# 2x2.
_base_ = './alexnet-96px_cifar10.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DenseNet',
        arch=dict(growth_rate=12, depths=[4, 4, 4, 4], init_channels=24)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=93))

train_pipeline = _base_.train_pipeline
train_pipeline[3].scale = 64
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 64
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='SGD',
        lr=0.2,
        momentum=0.9,
        weight_decay=5e-4,
        nesterov=True))
param_scheduler = dict(eta_max=0.2)
