# MSVMamba-Nano on ImageNet-1K as published: 300 epochs, total batch 1024, 77.3 top-1. Micro, Tiny and v3_tiny
# change arch alone; v3_small has drop_path_rate=0.4 as well, and v3_base drop_path_rate=0.5, lr=6e-4 and
# eta_min=6e-6.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs_warmup_20.py"]

model = dict(network=dict(type="MSVMambaClassifier", arch="nano", drop_path_rate=0.2, num_classes=1000))

custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=1e-4)]
