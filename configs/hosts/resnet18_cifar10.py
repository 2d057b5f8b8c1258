# A ResNet-18 for 32x32 images, trained from scratch on CIFAR-10: the host of
# the classification benchmark. MMPretrain's recipe takes 200 epochs; this one
# cycle is what two CPU cores manage. docs/benchmarks.md says how good it is.
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    '../_base_/datasets/cifar10_folder.py',
    'mmpretrain::_base_/default_runtime.py',
]
max_epochs = 5
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=0.2,
    pct_start=0.3,
    by_epoch=True,
    begin=0,
    total_steps=max_epochs,
    convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
