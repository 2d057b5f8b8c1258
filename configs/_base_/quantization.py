# What configs/quantization changes against configs/featjnd: the estimator is
# trained for the quantizer that will use it. As with the schedules, a config
# takes the fields over by
#     globals().update(_base_.pop('quantization'))
quantization = dict(
    model=dict(
        neck=dict(estimator=dict(mode='envelope')),
        training=dict(
            type='mmfeatjnd.QuantizationSurrogate', magnitude='rate'),
        # the fewest bits at which the discrepancy stays at the tolerance
        objective=dict(
            magnitude_weight=1.0, tolerance=0.02, multiplier=10.0,
            adapt=0.05)),
    # validation and test see the quantized host. Writing real bitstreams
    # takes seconds for an image of COCO, so it must be asked for:
    # `--cfg-options custom_hooks.0.coded=True`.
    custom_hooks=[
        dict(
            type='mmfeatjnd.QuantizationHook',
            policy='featjnd',
            scale=1.0,
            coded=False)
    ])
