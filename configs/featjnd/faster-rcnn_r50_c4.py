# A host without a neck: what the split emits must be said.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmdet.FasterRCNN',
    neck=dict(
        type='mmfeatjnd.FeatJNDNeck',
        in_channels=1024,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))

load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_caffe_c4_1x_coco/faster_rcnn_r50_caffe_c4_1x_coco_20220316_150152-3f885b85.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
