# FeatJND on the ResNet-18 of configs/hosts. The split is the output of the
# second stage group: half of the host follows it.
_base_ = [
    '../hosts/resnet18_1xb128-5e_cifar10.py',
    '../_base_/schedules/featjnd_short.py',
]
train_dataloader = dict(batch_size=64)
model = dict(
    type='mmfeatjnd.FeatJND',
    host='mmpretrain.ImageClassifier',
    neck=dict(
        _delete_=True,
        type='mmfeatjnd.FeatJNDNeck',
        neck=_base_.model.neck,
        split='backbone.layer2',
        in_channels=128,
        estimator=dict(type='mmfeatjnd.ConvEstimator')))
_base_.featjnd_schedule.train_cfg.max_iters = 400
globals().update(_base_.pop('featjnd_schedule'))
load_from = 'work_dirs/resnet18_1xb128-5e_cifar10/epoch_5.pth'
