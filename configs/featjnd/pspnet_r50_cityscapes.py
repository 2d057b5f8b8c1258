# The backbone emits four levels. The decode head uses the last only, and the
# auxiliary head, which uses the third, does not predict.
_base_ = [
    'mmseg::pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/schedules/featjnd_1k.py',
]
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmseg.EncoderDecoder',
    neck=dict(
        type='mmfeatjnd.FeatJNDNeck',
        in_channels=[256, 512, 1024, 2048],
        levels=[3],
        estimator=dict(type='mmfeatjnd.ConvEstimator')))

load_from = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r50-d8_512x1024_80k_cityscapes/pspnet_r50-d8_512x1024_80k_cityscapes_20200606_112131-2376f12b.pth'  # noqa: E501
globals().update(_base_.pop('featjnd_schedule'))
