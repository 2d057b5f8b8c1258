# FeatJND on the Mask R-CNN R-18 of configs/hosts, before its FPN.
_base_ = [
    '../hosts/mask-rcnn_r18_1xb4-8e_dsb2018.py',
    '../_base_/schedules/featjnd_short.py',
]
train_dataloader = dict(batch_size=2)
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmdet.MaskRCNN',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))
_base_.featjnd_schedule.train_cfg.max_iters = 150
globals().update(_base_.pop('featjnd_schedule'))
load_from = 'work_dirs/mask-rcnn_r18_1xb4-8e_dsb2018/epoch_8.pth'
