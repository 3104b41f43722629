# The published training by L1 alone for real-world pictures; the learning rate stays as it is.
_base_ = "./schedule_500k.py"
train_cfg = dict(max_iters=1_000_000, val_interval=10_000)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=10_000))
