# The same at the length that a GPU allows: one cycle of 24 epochs, about two
# minutes on one that is fed by a dozen of cores.
_base_ = './resnet18_1xb128-5e_cifar10.py'
max_epochs = 24
train_dataloader = dict(batch_size=512, num_workers=12)
val_dataloader = dict(batch_size=1000, num_workers=4)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.4))
param_scheduler = dict(eta_max=0.4, total_steps=max_epochs)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
