# A ResNet-18 for 32x32 images, trained from scratch on CIFAR-10: the host of
# the classification benchmark. docs/benchmarks.md says how good it is.
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/schedules/cifar10_one_cycle.py',
    'mmpretrain::_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
