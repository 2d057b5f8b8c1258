# The demo's FeatJND: the host of mask-rcnn_tiny_shapes.py, before its FPN.
_base_ = [
    './mask-rcnn_tiny_shapes.py',
    '../_base_/schedules/featjnd_short.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmdet.MaskRCNN',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))
_base_.featjnd_schedule.train_cfg.max_iters = 160
globals().update(_base_.pop('featjnd_schedule'))
val_cfg = None  # tested by the demo itself
val_dataloader = None
val_evaluator = None
