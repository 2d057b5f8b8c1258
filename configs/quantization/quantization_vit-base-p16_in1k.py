_base_ = ['../featjnd/vit-base-p16_in1k.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
