_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmseg.EncoderDecoder',
    neck=dict(
        type='mmfeatjnd.FeatJNDNeck',
        in_channels=[32, 64, 160, 256],
        estimator=dict(type='mmfeatjnd.ConvEstimator')))

load_from = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/segformer/segformer_mit-b0_512x512_160k_ade20k/segformer_mit-b0_512x512_160k_ade20k_20210726_101530-8ffa8fda.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
