# DMV-JND of an instance segmentation model: its own detections are the labels,
# their scores the attention. Beyond the paper. Train the detector first:
# tools/train.py configs/hosts/mask-rcnn_r18_1xb4-8e_dsb2018.py
_base_ = [
    '../_base_/datasets/dsb2018_instance.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(
    type='mmfeatjnd.DMVJND',
    tasks=[
        dict(
            type='mmfeatjnd.DetectionTask',
            config='{{ fileDirname }}/../hosts/'
            'mask-rcnn_r18_1xb4-8e_dsb2018.py',
            checkpoint='work_dirs/mask-rcnn_r18_1xb4-8e_dsb2018/epoch_8.pth'),
    ],
    # narrow, as the schedule is short, for two CPU cores
    net=dict(type='mmfeatjnd.DMVJNDNet', widths=(32, 64, 128)),
    objective=dict(type='mmfeatjnd.DMVJNDLoss', distribution='centred'),
    mean=127.5,
    std=127.5)

# The annotations only steer the crops of the training images.
val_evaluator = [
    dict(type='mmfeatjnd.RelativeAccuracy'),
    dict(type='mmfeatjnd.PeakSNR', data_range=255),
    dict(type='mmfeatjnd.JNDMagnitude'),
]
test_evaluator = val_evaluator

max_epochs = 4
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-3))
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=1e-3,
    by_epoch=True,
    begin=0,
    total_steps=max_epochs,
    convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=2), logger=dict(interval=10))
randomness = dict(seed=0)
