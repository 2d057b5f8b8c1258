# The same on the host with half the channels.
_base_ = './resnet18_cifar10.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    neck=dict(in_channels=64),
    head=dict(in_channels=256))
load_from = 'work_dirs/resnet18-w32_1xb128-5e_cifar10/epoch_5.pth'
