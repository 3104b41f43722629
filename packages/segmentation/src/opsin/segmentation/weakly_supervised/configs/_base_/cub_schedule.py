# CUB-200-2011 as published: 120 epochs.
_base_ = ["./localization_optimizer.py"]

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=120, val_interval=1)
param_scheduler = [dict(type="MultiStepLR", milestones=[80], gamma=0.1, by_epoch=True)]
