# The backbone's output goes straight into global average pooling, which hides
# every change of zero mean. The split lies one stage earlier.
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmpretrain.ImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        split='backbone.layer3',
        in_channels=1024,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
