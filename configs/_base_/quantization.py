# What configs/quantization adds to configs/featjnd: validation and test see
# the host with its features quantized by the estimator's JND. Writing real
# bitstreams takes seconds for an image of COCO, so it must be asked for:
# `--cfg-options custom_hooks.0.coded=True`. As with the schedules, a config
# takes the field over by
#     globals().update(_base_.pop('quantization'))
quantization = dict(custom_hooks=[
    dict(
        type='mmfeatjnd.QuantizationHook',
        policy=dict(
            type='featjnd',
            granularity='channel-token',
            jnd_rounding=True,
            power=1.0),
        scale=1.0,
        coded=False)
])
