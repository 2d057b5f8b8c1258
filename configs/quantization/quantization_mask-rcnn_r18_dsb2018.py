_base_ = ['../featjnd/mask-rcnn_r18_dsb2018.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
# rate and tolerance pull against each other: that takes longer to settle
train_cfg = dict(max_iters=400)
# the images are small enough to write every bitstream
custom_hooks[0].update(coded=True)
