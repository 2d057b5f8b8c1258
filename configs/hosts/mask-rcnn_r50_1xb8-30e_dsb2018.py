# Mask R-CNN R-50 at its full width, trained from scratch on DSB2018: for a
# GPU.
_base_ = './mask-rcnn_r18_1xb4-8e_dsb2018.py'
channels = 256
max_epochs = 30
train_dataloader = dict(batch_size=8, num_workers=8)
model = dict(
    backbone=dict(depth=50),
    neck=dict(in_channels=[256, 512, 1024, 2048], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        mask_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=1024),
        mask_head=dict(
            num_convs=4, in_channels=channels,
            conv_out_channels=channels)))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        T_max=max_epochs,
        convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
