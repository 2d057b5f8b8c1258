_base_ = ['../featjnd/faster-rcnn_r50_c4.py', '../_base_/quantization.py']
model = dict(
    neck=dict(estimator=_base_.quantization.estimator),
    training=_base_.quantization.training,
    objective=_base_.quantization.objective)
custom_hooks = _base_.quantization.custom_hooks
