# A quarter of the channels, for two CPU cores.
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    '../../_base_/datasets/cifar10_folder.py',
    '../../_base_/schedules/cifar10_one_cycle.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    head=dict(in_channels=128))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
