# DMV-JND with the settings of the paper, but with our reading of Loss3 and
# with clipping (docs/dmv_jnd.md). Train the four classifiers first: README.md.
_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    type='mmfeatjnd.DMVJND',
    tasks=[
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/alexnet_cifar10.py',
            checkpoint='work_dirs/alexnet_cifar10/epoch_200.pth',
            input_size=224),
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/vgg16_cifar10.py',
            checkpoint='work_dirs/vgg16_cifar10/epoch_200.pth',
            input_size=64),
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/resnet18_200e_cifar10.py',
            checkpoint='work_dirs/resnet18_200e_cifar10/epoch_200.pth',
            input_size=32),
        dict(
            type='mmfeatjnd.ClassificationTask',
            config='{{ fileDirname }}/classifiers/densenet121_cifar10.py',
            checkpoint='work_dirs/densenet121_cifar10/epoch_200.pth',
            input_size=128),
    ],
    net=dict(type='mmfeatjnd.DMVJNDNet'),
    # with |e| or e as it is, Loss3 would keep N0 from its target
    objective=dict(
        type='mmfeatjnd.DMVJNDLoss',
        alpha=1.0,
        beta=1.0,
        distribution='centred'),
    mean=127.5,
    std=127.5)
# each task normalizes for itself
data_preprocessor = dict(_delete_=True, type='BaseDataPreprocessor')

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=50, dataset=dict(pipeline=train_pipeline))
val_evaluator = [
    dict(type='mmfeatjnd.RelativeAccuracy'),
    dict(type='mmfeatjnd.PeakSNR', data_range=255),
    dict(type='mmfeatjnd.JNDMagnitude'),
]
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-5, weight_decay=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
