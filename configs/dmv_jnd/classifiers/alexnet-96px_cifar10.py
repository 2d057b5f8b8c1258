# AlexNet on small images, for two CPU cores: its map is 2x2.
_base_ = './resnet18-w16_cifar10.py'
model = dict(
    backbone=dict(_delete_=True, type='AlexNet'),
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.CAMNeck',
        in_channels=256,
        widths=(256, )),
    head=dict(in_channels=256))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='Resize', scale=96),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=96),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# as the full one
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=5e-4))
param_scheduler = dict(eta_max=5e-4)
