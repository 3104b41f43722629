# Vim-Ti on ImageNet-1K as published: 300 epochs, total batch 1024, full precision, 76.1 top-1.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="VisionMambaClassifier", arch="tiny", num_classes=1000))
train_dataloader = dict(sampler=dict(_delete_=True, type="RepeatedAugmentation"))

optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=4e-5)]
