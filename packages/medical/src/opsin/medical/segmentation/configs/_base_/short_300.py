# Twice as long as the sample data need.
_base_ = "./short.py"
train_cfg = dict(max_iters=300, val_interval=300)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, end=300, eta_min=1e-4)]
