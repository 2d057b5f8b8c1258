# The stock YOLOX-Nano on a small part of COCO (data/coco_small). Estimators
# are trained on its pictures and on 400 of ImageNet (data/imagenet_sample),
# without labels and plain: an estimator has no use for collages. Its weights
# are given: data/hosts/yolox_nano_coco.pth.
_base_ = 'mmdet::yolox/yolox_nano_8xb8-300e_coco.py'
data_root = 'data/coco_small/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(416, 416), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
# A batch is padded as a letterbox is, and unlike it known as no content; and
# estimators see the pictures in the size of the test.
model = dict(data_preprocessor=dict(pad_value=114, batch_augments=None))
train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    # pictures without labels: COCO's, and others since there are few
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmfeatjnd.PictureFolder',
                data_root=data_root + 'train2017',
                pipeline=train_pipeline),
            dict(
                type='mmfeatjnd.PictureFolder',
                data_root='data/imagenet_sample',
                ann_file='train.txt',
                data_prefix=dict(img_path='images'),
                pipeline=train_pipeline),
        ]))
val_dataloader = dict(
    batch_size=8, num_workers=2, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
custom_hooks = []
