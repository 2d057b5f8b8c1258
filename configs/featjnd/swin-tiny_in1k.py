# Not the backbone's output, which goes into global average pooling, but the
# tokens (B, 196, 384) of the third stage, before they are merged.
_base_ = [
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmpretrain.ImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        split='backbone.stages.2',
        in_channels=384,
        estimator=dict(type='mmfeatjnd.TokenEstimator')),
    train_cfg=None)  # no Mixup or CutMix: the estimator sees plain images

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
