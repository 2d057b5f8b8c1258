# The same on the Mask R-CNN R-50 of full width: for a GPU.
_base_ = [
    '../hosts/mask-rcnn_r50_1xb8-30e_dsb2018.py',
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
globals().update(_base_.pop('featjnd_schedule'))
load_from = 'work_dirs/mask-rcnn_r50_1xb8-30e_dsb2018/epoch_30.pth'
