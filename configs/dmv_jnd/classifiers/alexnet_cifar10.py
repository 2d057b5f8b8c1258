# AlexNet with the head of Zhou et al.: two convolutions of 512 channels. Its
# strides need large images; at 224x224 pixels its map is 6x6. Without batch
# normalization SGD stays on the plateau where it starts, hence Adam.
_base_ = './vgg16_cifar10.py'
model = dict(
    backbone=dict(_delete_=True, type='AlexNet'),
    neck=dict(in_channels=256, widths=(512, 512)),
    head=dict(in_channels=512))

train_pipeline = _base_.train_pipeline
train_pipeline[3].scale = 224
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 224
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=5e-4))
