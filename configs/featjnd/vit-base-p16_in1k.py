# The stock model at 224 pixels with a checkpoint. The split is the ninth of
# twelve blocks: tokens (B, 197, 768) with the class token first.
_base_ = [
    'mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmpretrain.ImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        split='backbone.layers.8',
        in_channels=768,
        estimator=dict(type='mmfeatjnd.TokenEstimator')),
    train_cfg=None)  # no Mixup or CutMix: the estimator sees plain images
custom_hooks = []  # no moving average of weights: the host is frozen

load_from = 'https://mmassets.onedl.ai/mmclassification/v0/vit/vit-base-p16_pt-32xb128-mae_in1k_20220623-4c544545.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
