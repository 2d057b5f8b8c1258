_base_ = ['../featjnd/swin-tiny_in1k.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
