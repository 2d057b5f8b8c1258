# The same with half the channels: a quarter of the work.
_base_ = './resnet18_1xb128-5e_cifar10.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    head=dict(in_channels=256))
