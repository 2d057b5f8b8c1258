# Narrower classifiers and autoencoder and one epoch, for two CPU cores.
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

max_epochs = 1
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = dict(eta_max=2e-3, total_steps=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
