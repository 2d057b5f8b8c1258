_base_ = ['../featjnd/segformer_mit-b0_ade20k.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
