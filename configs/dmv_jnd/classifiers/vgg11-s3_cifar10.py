# The first three stages of VGG-11 and a narrow CAM head, for two CPU cores. At
# 32x32 pixels its map is 8x8.
_base_ = './resnet18-w16_cifar10.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='VGG',
        depth=11,
        num_stages=3,
        dilations=(1, 1, 1),
        out_indices=(2, ),
        norm_cfg=dict(type='BN'),
        with_last_pool=False),
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.CAMNeck',
        in_channels=256,
        widths=(256, )),
    head=dict(in_channels=256))
