# FeatJND on the stock MobileNetV2 and a picture of each class: real weights,
# real pictures. Two stage groups follow the split.
_base_ = [
    '../hosts/mobilenet-v2_1xb32_imagenet-sample.py',
    '../_base_/schedules/featjnd_short.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmpretrain.ImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        split='backbone.layer5',
        in_channels=96,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))
globals().update(_base_.pop('featjnd_schedule'))
load_from = 'data/hosts/mobilenet_v2_in1k.pth'
