# FeatJND on the stock YOLOX-Nano and a small part of COCO: real weights, real
# pictures, minutes.
_base_ = [
    '../hosts/yolox-nano_1xb4_coco-small.py',
    '../_base_/schedules/featjnd_short.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmdet.YOLOX',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))
_base_.featjnd_schedule.train_cfg.max_iters = 300
globals().update(_base_.pop('featjnd_schedule'))
load_from = 'data/hosts/yolox_nano_coco.pth'
