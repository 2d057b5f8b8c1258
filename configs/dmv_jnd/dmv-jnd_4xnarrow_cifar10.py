# Narrower classifiers and autoencoder and 1500 iterations, for two CPU cores.
_base_ = './dmv-jnd_4xclassifiers_cifar10_fast.py'
model = dict(
    tasks=[
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/alexnet-96px_cifar10.py',
            checkpoint='work_dirs/alexnet-96px_cifar10/epoch_5.pth',
            input_size=96),
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/vgg11-s3_cifar10.py',
            checkpoint='work_dirs/vgg11-s3_cifar10/epoch_5.pth',
            input_size=32),
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/resnet18-w16_cifar10.py',
            checkpoint='work_dirs/resnet18-w16_cifar10/epoch_5.pth',
            input_size=32),
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/densenet-k12_cifar10.py',
            checkpoint='work_dirs/densenet-k12_cifar10/epoch_5.pth',
            input_size=64),
    ],
    net=dict(widths=(32, 64, 128)))

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = dict(
    _delete_=True,
    type='OneCycleLR',
    eta_max=2e-3,
    by_epoch=False,
    begin=0,
    total_steps=1500)
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=1500,
    val_interval=1500)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=250, max_keep_ckpts=-1))
log_processor = dict(by_epoch=False)
