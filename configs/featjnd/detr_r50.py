# The split lies before the 1x1 convolution that feeds the transformer.
_base_ = [
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmdet.DETR',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))

load_from = 'https://download.openmmlab.com/mmdetection/v3.0/detr/detr_r50_8xb2-150e_coco/detr_r50_8xb2-150e_coco_20221023_153551-436d03e8.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
