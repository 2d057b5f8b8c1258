# ResNet-18 for 32x32 images. It ends in global average pooling and a linear
# layer, which is all that a class activation map needs.
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    '../../_base_/datasets/cifar10_folder.py',
    'mmpretrain::_base_/schedules/cifar10_bs128.py',
    'mmpretrain::_base_/default_runtime.py',
]
train_dataloader = dict(num_workers=4)
train_cfg = dict(val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=2))
randomness = dict(seed=0)
