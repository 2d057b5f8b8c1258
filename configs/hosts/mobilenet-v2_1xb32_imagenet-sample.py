# The stock MobileNetV2 on a picture of each of ImageNet's classes
# (data/imagenet_sample: 400 to train on without labels, 600 to test). Its
# weights are given, data/hosts/mobilenet_v2_in1k.pth, and want pixels in
# [-1, 1] and crops of an odd size.
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=225),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CenterCrop', crop_size=225),
    dict(type='PackInputs'),
]
dataset = dict(
    _delete_=True,
    type='CustomDataset',
    data_root='data/imagenet_sample',
    data_prefix='images')
train_dataloader = dict(
    num_workers=2,
    dataset=dict(dataset, ann_file='train.txt', pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
val_dataloader = dict(
    num_workers=2,
    dataset=dict(dataset, ann_file='test.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
