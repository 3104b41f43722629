# UPerNet on ADE20K for 160,000 iterations of 16 pictures: warm-up over the first 1500, then linearly to zero.
_base_ = ["./upernet_ade20k.py"]

max_iters = 160000

train_dataloader = dict(batch_size=16)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=16000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=16000))
