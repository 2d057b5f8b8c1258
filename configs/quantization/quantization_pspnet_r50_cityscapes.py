_base_ = ['../featjnd/pspnet_r50_cityscapes.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
