_base_ = ['../featjnd/vit-base-p16_in1k.py', '../_base_/quantization.py']
model = dict(
    neck=dict(estimator=_base_.quantization.estimator),
    training=_base_.quantization.training,
    objective=_base_.quantization.objective)
custom_hooks = _base_.quantization.custom_hooks
