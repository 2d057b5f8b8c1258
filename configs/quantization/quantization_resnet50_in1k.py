_base_ = ['../featjnd/resnet50_in1k.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
