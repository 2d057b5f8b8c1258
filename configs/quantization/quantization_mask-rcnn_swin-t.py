_base_ = ['../featjnd/mask-rcnn_swin-t.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
