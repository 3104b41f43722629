# ConvNeXt-T on ImageNet-1K as published: 300 epochs, total batch 4096, 82.1 top-1. The other variants change
# arch and drop_path_rate (small 0.4, base and large 0.5). The learning rate follows the total batch that is
# really used.
_base_ = ["./_base_/imagenet_224.py", "./_base_/adamw_300_epochs.py"]

model = dict(network=dict(type="ConvNeXtClassifier", arch="tiny", drop_path_rate=0.1, num_classes=1000))

optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=20,
        end=300,
        T_max=280,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=1e-4)]
