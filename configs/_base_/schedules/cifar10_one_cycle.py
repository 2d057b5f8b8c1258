# One cycle of five epochs: what two CPU cores manage. MMPretrain's recipe for
# CIFAR-10 takes 200 epochs.
max_epochs = 5
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=0.2,
    pct_start=0.3,
    by_epoch=True,
    begin=0,
    total_steps=max_epochs,
    convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
