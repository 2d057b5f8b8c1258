_base_ = ['../featjnd/resnet18-w32_cifar10.py', '../_base_/quantization.py']
model = dict(
    neck=dict(estimator=_base_.quantization.estimator),
    training=_base_.quantization.training,
    objective=_base_.quantization.objective)
# rate and tolerance pull against each other: that takes longer to settle
train_cfg = dict(max_iters=1000, val_interval=1000)
param_scheduler = dict(T_max=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
# the images are small enough to write every bitstream
custom_hooks = [dict(_base_.quantization.custom_hooks[0], coded=True)]
