_base_ = ['../featjnd/mask-rcnn_r18_dsb2018.py', '../_base_/quantization.py']
# the images are small enough to write every bitstream
_base_.quantization.custom_hooks[0].coded = True
globals().update(_base_.pop('quantization'))
