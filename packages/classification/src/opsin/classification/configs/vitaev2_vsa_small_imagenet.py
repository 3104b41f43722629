# ViTAEv2-S with varied-size windows on ImageNet-1K as published: 300 epochs and ten of cool-down, 82.7
# top-1. The 48M variant takes drop_path_rate 0.25 and weight decay 0.055. The learning rate is for a total
# batch of 1024 and follows the one that is really used.
_base_ = ["./_base_/imagenet_224.py"]

model = dict(network=dict(type="ViTAEv2VSAClassifier", arch="small", drop_path_rate=0.1, num_classes=1000))

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    constructor="LayerDecayConstructor",  # its decay is 1: it keeps weight decay off 1-D tensors and tables
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=4e-5)]
train_cfg = dict(by_epoch=True, max_epochs=310, val_interval=1)
param_scheduler = [
    dict(type="LinearLR", start_factor=2e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        by_epoch=True,
        begin=10,
        end=300,
        T_max=290,
        convert_to_iter_based=True,
    ),
]
