_base_ = ['../featjnd/resnet18_cifar10.py', '../_base_/quantization.py']
model = dict(
    neck=dict(estimator=_base_.quantization.estimator),
    objective=_base_.quantization.objective)
# the images are small enough to write every bitstream
custom_hooks = [dict(_base_.quantization.custom_hooks[0], coded=True)]
