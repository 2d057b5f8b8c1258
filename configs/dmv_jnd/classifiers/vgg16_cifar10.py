# VGG-16 with the head of Zhou et al.: without the last pooling, and with one
# convolution of 1024 channels. At 64x64 pixels its map is 4x4.
_base_ = './resnet18_200e_cifar10.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='VGG',
        depth=16,
        norm_cfg=dict(type='BN'),
        with_last_pool=False),
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.CAMNeck',
        in_channels=512,
        widths=(1024, ),
        dropout=0.5),
    head=dict(in_channels=1024))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='Resize', scale=64),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=64),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
