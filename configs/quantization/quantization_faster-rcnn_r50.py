_base_ = ['../featjnd/faster-rcnn_r50.py', '../_base_/quantization.py']
globals().update(_base_.pop('quantization'))
