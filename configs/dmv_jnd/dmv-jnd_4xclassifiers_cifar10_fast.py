# A schedule of 30 epochs with a hundred times the paper's learning rate.
_base_ = './dmv-jnd_4xclassifiers_cifar10.py'
max_epochs = 30
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=1e-3,
    by_epoch=True,
    begin=0,
    total_steps=max_epochs,
    convert_to_iter_based=True)
train_cfg = dict(max_epochs=max_epochs)
# for the figure over the training
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=-1))
