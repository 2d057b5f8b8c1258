# DenseNet-121. Its stem and transitions divide by 32; at 128x128 pixels its
# map is 4x4.
_base_ = './vgg16_cifar10.py'
model = dict(
    backbone=dict(_delete_=True, type='DenseNet', arch='121'),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=1024))

train_pipeline = _base_.train_pipeline
train_pipeline[3].scale = 128
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 128
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
